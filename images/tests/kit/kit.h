/* What a small test guest has at hand. docs/small-guests.md tells how to write one. */
#pragma once
#include "xen.h"

/* -- a test and its end */

struct variation {
    const char *name;
    void (*run)(void);
};
/* One way to run the folder's test, and what it shows: VARIATION(name, "story") { … } */
#define VARIATION(id, story) ONE_VARIATION(id)
/* One that must end with the domain crashed, for a reason that holds this text; it prints no result. */
#define CRASHING_VARIATION(id, reason, story) ONE_VARIATION(id)
#define ONE_VARIATION(id)                                                                                       \
    static void run_##id(void);                                                                                 \
    static const struct variation variation_##id __attribute__((used, section(".variations"))) = {#id, run_##id}; \
    static void run_##id(void)

/* One line for the harness: right, or wrong with a detail. A name has no colon. */
void check(int right, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
int check_equal(sword got, sword wanted, const char *name);
int check_entry(u64 got, u64 wanted, const char *name); /* the same of 64 bits whatever a word is */
void skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void broken(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2))); /* the test itself fails */
void power_off(void) __attribute__((noreturn));
/* For what a test takes for granted: anything but 0 ends it as an error. */
#define MUST(call) must((sword)(call), #call, __FILE_NAME__, __LINE__)
#ifndef __FILE_NAME__ /* gcc has it from version 12 on */
#define __FILE_NAME__ __FILE__
#endif
void must(sword result, const char *call, const char *file, int line);

/* -- console: %d %u %x %p %s %c %%, each also with l or ll and a width */

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *memset(void *to, int byte, unsigned long size);
void *memcpy(void *to, const void *from, unsigned long size);
int memcmp(const void *a, const void *b, unsigned long size);
int strcmp(const char *a, const char *b);

/* -- hypercalls. The counts that mmu_update and mmuext_op report come in `done`. */

#define hypercall(number, ...) HYPERCALL(number, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define HYPERCALL(...) HYPERCALL_(__VA_ARGS__) /* a VALUE() becomes the arguments that it is */
#define HYPERCALL_(number, a, b, c, d, e, f, ...) \
    hypercall6(number, (word)(a), (word)(b), (word)(c), (word)(d), (word)(e), (word)(f))
enum { UNTOUCHED = 0x5a5a5a5a };
extern u32 done;
sword mmu_update(const struct mmu_update *requests, word count, word domain);
sword update(u64 address, u64 value); /* one entry of a page table, by its machine address; low bits: the command */
sword mmuext_op(const struct mmuext_op *operations, word count, word domain);
sword mmuext(u32 command, word arg1, word arg2);
sword map(word address, u64 entry); /* update_va_mapping with INVLPG */
sword update_va_mapping(word address, u64 entry, word flags);
sword memory_op(word command, const void *argument);
sword event_channel_op(word command, void *argument);

/* -- pages. All of these live at VIRT_BASE + PFN * PAGE, where Xen's builder has mapped them. */

#define PAGE 4096ul
enum { P = 1, RW = 2, US = 4, PWT = 8, PCD = 16, A = 32, D = 64, PSE = 128, G = 256 };
#define PAT 128ull
#define NX (1ull << 63)
#define ENTRY_FLAGS 0xfff0000000000fffull
/* Xen stores these as they are. */
#define DATA (P | RW | A | KERNEL_BITS)
#define DATA_RO (P | A | KERNEL_BITS)
#define USER_DATA_FLAGS (P | RW | US | A | D)
#define USER_CODE_FLAGS (P | US | A)
#define TABLE (P | RW | US | A | D)
#define TABLE_RO (P | US | A | D)

extern const struct start_info *start_info;
extern struct shared_info *shared;
extern word max_mfn; /* the first frame number behind the machine's memory */

void *page(void);          /* a zeroed page, mapped writable once and not used for anything else */
void *table(void);         /* one that is mapped read-only, to become a page table */
word spare_pfn(void);      /* one that nothing maps */
word mfn_of(const void *page);
void set_mfn(word pfn, word mfn); /* in the P2M list; Xen's M2P is not touched */
#define pfn_of(page) (((word)(page) - VIRT_BASE) / PAGE)
#define mfn_of_pfn(pfn) (((const word *)start_info->mfn_list)[pfn])
#define address_of(thing) ((u64)mfn_of(thing) * PAGE + ((word)(thing) & (PAGE - 1))) /* its machine address */
#define frame_address(mfn) ((u64)(mfn) * PAGE)
sword read_only(const void *page);
sword writable(const void *page);
sword unmap(const void *page);

/* -- page tables, as the CPU walks them from the kernel's root */

word root_mfn(void);
int own_frame(word mfn);     /* one that the P2M has */
word freed_frame(void);      /* a frame that was the guest's and is nobody's; giving it back is a change of its own */
#define NO_RAM (max_mfn + 0x10000)   /* a frame number behind the machine's memory */
#define INVALID_FRAME 0xffffffffffull /* INVALID_MFN, as an entry can hold it */
u64 *table_at(word mfn);                     /* one of our own frames */
u64 entry_address(word address, int level);  /* the machine address of the entry for an address; 0: no such table */
u64 entry(word address, int level);          /* its value; 0 if there is none */
void make_path(word address);                /* tables down to level 1, so that map() can be used on the address */
static inline int entry_index(word address, int level)
{
    return address >> LEVEL_SHIFT(level) & (ENTRIES - 1);
}

/* -- refusals: the call gives this error, and nothing changed

   What is compared before and after: all page tables, the M2P of all pages that were handed out, the size of the
   reservation, and of each watched page the content, and whether Xen lets it be mapped writable (that is, its type).
   Between the two stands the call only. `done` has to be as far as AT says; without it 0, or not written. */

#define REFUSED(name, error, call) (audit_before(), audit_after(name, -(error), (sword)(call), 0, 0))
#define REFUSED_AT(count, name, error, call) (audit_before(), audit_after(name, -(error), (sword)(call), 1, count))
/* The same for a call that returns a count or a status. */
#define NO_CHANGE(name, result, call) (audit_before(), audit_after(name, result, (sword)(call), 0, 0))
/* The same where the refusal is a trap: the TRY gives this vector, error code and, for #PF, address. */
#define REFUSED_BY_TRAP(name, vector, code, cr2, attempt) \
    (audit_before(), audit_after_trap(name, attempt, vector, code, cr2))
#define ALLOWED(name, call) check_equal((sword)(call), 0, name)
void watch(const void *page);
void audit_before(void);
void audit_after(const char *name, sword wanted, sword got, int counted, u32 count);
void audit_after_trap(const char *name, int taken, unsigned vector, word code, word cr2);
/* A count as mmu_update and mmuext_op report it, for what is no refusal. */
#define COUNTED(expected, name) \
    check(done == (u32)(expected), name, "a count of %u instead of %u", done, (u32)(expected))
/* Only a page that nothing maps writable, and that has no other type, can be pinned; its content has to be zero. */
void check_untyped(void *page, const char *name);
/* Only a page with a single reference, mapped nowhere else, can be exchanged. It has another frame afterwards. */
void check_single_reference(void *page, const char *name);

/* -- traps */

enum { DE = 0, DB = 1, NMI = 2, BP = 3, OF = 4, BR = 5, UD = 6, NM = 7, DF = 8, TS = 10, NP = 11, SS = 12, GP = 13,
       PF = 14, MF = 16, AC = 17, MC = 18, XM = 19 };
/* Ways in that are no exceptions. */
enum { FROM_EVENT = 256, FROM_SYSCALL = SYSTEM_CALL, FROM_SYSENTER = 258, FROM_SYSCALL32, FROM_FAILSAFE, FROM_KINDS };

/* The trap that TRY, caught() or user() met. */
struct fault {
    int taken;       /* 0: none; the rest is then old */
    int from_user;   /* the frame's CS has RPL 3 */
    unsigned vector;
    word code, cr2;
    word at;         /* where TRY's instruction is */
    u8 saved_mask;   /* the event mask as the frame has it */
    u8 entry_mask;   /* the event mask as the handler found it */
    u16 cs;          /* the frame's, without the mask */
    word entry_rsp;  /* the stack pointer at the handler's first instruction */
    word selectors[4]; /* ds, es, fs, gs, of the failsafe callback's frame */
    struct frame frame;
};
extern volatile struct fault fault;

/* One instruction (or a few), with what asm() takes behind it; goes on behind it if it traps. 1 if it did.
       TRY("mov %0, (%1)", : : "r"(value), "r"(address) : "memory")
       TRY("hlt", :) */
#define TRY(instruction, ...)                                                                    \
    ({                                                                                           \
        fault.taken = 0;                                                                         \
        asm volatile(TRY_BEGIN "770: " instruction "\n771: " TRY_END __VA_ARGS__);              \
        asm volatile("" : : : "memory");                                                         \
        fault.taken;                                                                             \
    })
/* A check that it traps with this vector and code, at itself, or, with no code, so many bytes further; or that it does not. */
#define TRAPS(name, vector, code, attempt) check_trap(name, attempt, vector, code, 0)
#define TRAPS_BEHIND(name, vector, length, attempt) check_trap(name, attempt, vector, 0, length)
#define NO_TRAP(name, attempt) check(!(attempt), name, "trap %u, code %lx", fault.vector, fault.code)
void check_trap(const char *name, int taken, unsigned vector, word code, unsigned length);
/* function(argument); 1 if a trap ended it. */
int caught(void (*function)(word), word argument);
/* User code (USER functions, written in assembly or without data of their own) until it makes a system call or traps.
   Returns what it had in rdi. `fault` has the rest: its vector is FROM_SYSCALL if all went well. */
word user(const void *code, word argument);
word user_as(const void *code, word argument, word cs, word rflags);
#define USER __attribute__((section(".user"), noinline))
#define user_address(thing) (USER_CODE + ((word)(thing) - (word)user_section))
extern char user_section[], user_section_end[], user_return[];
extern u64 *user_root; /* after the first user() or make_user() */
void make_user(void);

/* Called first with each trap or event, if set; 1: dealt with, go back to what the frame says. */
extern int (*on_trap)(struct frame *frame);
void set_gate(unsigned vector, unsigned flags, word address); /* address 0: the kit's own */
void take_all_traps(void);
word gate_address(unsigned vector);
sword set_callback(unsigned type, unsigned flags, word address);
extern char event_callback[], failsafe_callback[], syscall_callback[], sysenter_callback[], syscall32_callback[];
extern char stack_top[], entry_stack_top[];

/* -- events and time. They are masked until a test unmasks them. */

extern word events;          /* upcalls so far */
extern word port_events[];   /* the same by port, of the first 64 */
void mask_events(void);
void unmask_events(void);
u64 now(void);               /* nanoseconds of system time */
u32 bind_virq(u32 virq);     /* its port, unmasked */
void set_timer(u64 deadline);
const char *word_of_command_line(int n); /* counted from 0, which is the variation's name; "" if there are fewer */
