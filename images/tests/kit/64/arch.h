/* What is of the 64-bit interface: widths, selectors, layouts that differ. 32/arch.h is its twin. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned long word; /* as wide as a register */
typedef long sword;

#define BITS 64
#define W "q" /* ends the name of an instruction on a word */
#define AX "rax" /* registers to use in one, and in user code */
#define DI "rdi"
#define SP "rsp"
#define USER_CALL "syscall" /* user code's way to the kernel */
#define XEN_CALL "syscall" /* the kernel\'s to Xen */
#define FAR_JUMP "rex.W ljmp"
#define VIRT_BASE 0xffffffff80000000ul
#define M2P ((const volatile word *)0xffff800000000000ul)
#define HOLE 0xffff800000000000ul     /* Xen's: from here … */
#define HOLE_END 0xffff880000000000ul /* … to below here */
#define NON_CANONICAL 0x0000800000000000ul
#define NO_ADDRESS NON_CANONICAL /* where nothing can be */
#define SIGN 0xffff000000000000ul /* what an address of the upper half has above the tables' indexes */
#define BEHIND_M2P (HOLE + (4ul << 39)) /* Xen's, and not for the guest to read */
#define XENS HOLE /* no pointer of the guest's leads there */
#define LEVELS 4                      /* of page tables */
#define ENTRIES 512                   /* of a table */
#define LEVEL_SHIFT(level) (12 + 9 * ((level) - 1))
#define PIN_ROOT PIN_L4_TABLE
#define XENS_PART(level, index) ((level) == LEVELS && (index) >= 256 && (index) < 272) /* of a root */

#define FLAT_KERNEL_CS 0xe033
#define FLAT_KERNEL_SS 0xe02b
#define FLAT_USER_CS 0xe033
#define KERNEL_CS_IN_FRAME (FLAT_KERNEL_CS & ~3) /* by which the kernel is told from user code */
#define FLAT_USER_CS32 0xe023
#define FLAT_USER_SS 0xe02b
#define FIRST_RESERVED_SELECTOR 0xe000

/* The kernel, too, is in ring 3: Xen adds US to what it maps without, and a mark of its own. */
#define KERNEL_PAGE (1ull << 52)
#define KERNEL_BITS (US | KERNEL_PAGE)

/* Where user code runs, in both roots (see user()). */
#define USER_CODE 0x400000ul
#define USER_DATA 0x500000ul
#define USER_STACK_TOP 0x600000ul
/* Each has an L4 entry of its own. 0 is the kit's; a test has 1 to 223. */
#define TEST_AREA(n) (0x0000100000000000ul + ((word)(n) << 39))
#define ROOT_AREA(n) TEST_AREA(1 + (n)) /* what one entry of the root maps, with nothing there: 0 to 4 */
#define ROOT_AREAS 5
#define SYSTEM_CALL 257 /* the vector by which user code calls the kernel: syscall_callback's */

/* Xen's structures, as far as they are not the same but for their words' width. */
struct callback_register {
    u16 type, flags;
    word address __attribute__((aligned(8)));
};
#define CALLBACK(type, flags, address) {(type), (flags), (address)}
#define ARCH_VCPU_INFO word cr2, pad
#define SHARED_INFO_TAIL u32 wc_sec_hi; word max_pfn, frame_list_list, nmi_reason

/* Around TRY's instruction (kit.h). */
#define TRY_BEGIN "movq $771f, try_resume(%%rip)\nmovq $770f, try_at(%%rip)\n"
#define TRY_END "movq $0, try_resume(%%rip)\n"

/* What a trap's entry leaves on the stack. Xen pushes from rcx on, and the code only where there is one. */
struct frame {
    word live_rflags, live_cs, live_ss, live_ds, live_rcx, live_r11; /* the registers as the handler found them */
    word r15, r14, r13, r12, rbp, rbx, r10, r9, r8, rax, rdx, rsi, rdi, r11, rcx;
    word vector, code, rip, cs, rflags, rsp, ss;
};

/* A 64-bit value as a hypercall's arguments. */
#define VALUE(value) (value)

static inline u64 divided(u64 value, u32 by, u32 *rest)
{
    *rest = value % by;
    return value / by;
}

/* The event mask that Xen has put into a frame's CS word, and where the stack pointer was at the handler's entry. */
static inline u8 saved_mask_of(const struct frame *frame)
{
    return frame->cs >> 32;
}

/* How many words Xen pushes for the kernel's own trap, and for user code's; without a code. And how it aligns them. */
#define FRAME_WORDS 7
#define USER_FRAME_WORDS 7
#define FRAME_ALIGN 16ul

static inline word entry_stack_of(const struct frame *frame, int has_code, int is_failsafe)
{
    return (word)&frame->rip - 8 * (is_failsafe ? 6 : has_code ? 3 : 2);
}

static inline sword hypercall6(word number, word a, word b, word c, word d, word e, word f)
{
    sword result;
    register word fourth asm("r10") = d;
    register word fifth asm("r8") = e;
    register word sixth asm("r9") = f;
    asm volatile("syscall"
                 : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(fourth), "+r"(fifth), "+r"(sixth)
                 : "0"(number)
                 : "rcx", "r11", "memory");
    return result;
}

static inline word read_cr2(void)
{
    word value;
    asm volatile("mov %%cr2, %0" : "=r"(value));
    return value;
}

static inline word read_cr3(void)
{
    word value;
    asm volatile("mov %%cr3, %0" : "=r"(value));
    return value;
}
