/* What is of the 32-bit (PAE) interface: widths, selectors, layouts that differ. 64/arch.h is its twin. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned long word; /* as wide as a register */
typedef long sword;

#define BITS 32
#define W "l" /* ends the name of an instruction on a word */
#define AX "eax" /* registers to use in one, and in user code */
#define DI "edi"
#define SP "esp"
#define USER_CALL "int $0x80" /* user code's way to the kernel */
#define XEN_CALL "int $0x82" /* the kernel\'s to Xen */
#define FAR_JUMP "ljmp"
#define VIRT_BASE 0xc0000000ul
#define M2P ((const volatile word *)0xf5800000ul)
#define HOLE 0xf5800000ul /* Xen's: from here … */
#define HOLE_END 0ul      /* … to the end of all addresses */
#define NO_ADDRESS 0xfff00000ul /* where nothing can be */
#define SIGN 0ul
#define BEHIND_M2P 0xffe00000ul /* Xen's, and not for the guest to read */
#define XENS BEHIND_M2P /* no pointer of the guest's leads there; the M2P it may read */
#define LEVELS 3          /* of page tables; the root has four entries */
#define ENTRIES 512       /* of a table */
#define LEVEL_SHIFT(level) (12 + 9 * ((level) - 1))
#define PIN_ROOT PIN_L3_TABLE
#define XENS_PART(level, index) 0 /* of a root */

#define FLAT_KERNEL_CS 0xe019
#define FLAT_KERNEL_SS 0xe021
#define FLAT_USER_CS 0xe02b
#define KERNEL_CS_IN_FRAME FLAT_KERNEL_CS
#define FLAT_USER_SS 0xe033
#define FIRST_RESERVED_SELECTOR 0xe000

/* The kernel is in ring 1, and what it maps without US is its own; Xen stores an entry as it is given. */
#define KERNEL_PAGE 0
#define KERNEL_BITS 0

/* Where user code runs. */
#define USER_CODE 0x400000ul
#define USER_DATA 0x500000ul
#define USER_STACK_TOP 0x600000ul
/* Each has an L2 entry of its own. 0 is the kit's; a test has 1 to 223. */
#define TEST_AREA(n) (0x40000000ul + ((word)(n) << 21))
#define ROOT_AREA(n) (0x80000000ul - ((word)(n) << 30)) /* what one entry of the root maps: 0 and 1, where TEST_AREA is */
#define ROOT_AREAS 2
#define SYSTEM_CALL 0x80 /* the vector by which user code calls the kernel; its gate has DPL 3 */

/* Xen's structures, as far as they are not the same but for their words' width. */
struct callback_register {
    u16 type, flags;
    u32 cs;
    word address;
};
#define CALLBACK(type, flags, address) {(type), (flags), FLAT_KERNEL_CS, (address)}
#define ARCH_VCPU_INFO word cr2, pad[5]
#define SHARED_INFO_TAIL word max_pfn, frame_list_list, nmi_reason, p2m_cr3, p2m_vaddr, p2m_generation; u32 wc_sec_hi

/* Around TRY's instruction (kit.h). */
#define TRY_BEGIN "movl $771f, try_resume\nmovl $770f, try_at\n"
#define TRY_END "movl $0, try_resume\n"

/* What a trap's entry leaves on the stack: from rip on as Xen pushed it, but that rsp and ss, which it leaves out for
   the kernel's own traps, are there as they were. Registers have their 64-bit names, so that a test reads either. */
struct frame {
    word live_rflags, live_cs, live_ss, live_ds, live_es, pushed_to; /* as the handler found them; where Xen's part is */
    word rdi, rsi, rbp, unused, rbx, rdx, rcx, rax;
    word vector, code, rip, cs, rflags, rsp, ss;
};

/* A 64-bit value as a hypercall's arguments. */
#define VALUE(value) (u32)(value), (u32)((u64)(value) >> 32)

static inline u64 divided(u64 value, u32 by, u32 *rest)
{
    u32 high = value >> 32, low = value, upper = high / by;
    asm("divl %4" : "=a"(low), "=d"(*rest) : "0"(low), "1"(high % by), "rm"(by));
    return (u64)upper << 32 | low;
}

/* The event mask that Xen has put into a frame's CS word, and where the stack pointer was at the handler's entry. */
static inline u8 saved_mask_of(const struct frame *frame)
{
    return frame->cs >> 16;
}

/* How many words Xen pushes for the kernel's own trap, and for user code's; without a code. And how it aligns them. */
#define FRAME_WORDS 3
#define USER_FRAME_WORDS 5
#define FRAME_ALIGN 1ul

static inline word entry_stack_of(const struct frame *frame, int has_code, int is_failsafe)
{
    return frame->pushed_to - (is_failsafe ? 16 : has_code ? 4 : 0);
}

/* Five registers are what there is: no call has a sixth argument. */
static inline sword hypercall6(word number, word a, word b, word c, word d, word e, word f)
{
    sword result;
    (void)f;
    asm volatile("int $0x82"
                 : "=a"(result), "+b"(a), "+c"(b), "+d"(c), "+S"(d), "+D"(e)
                 : "0"(number)
                 : "memory");
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
