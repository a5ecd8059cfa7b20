/* The little that this guest needs of Xen's interface (xen/include/public), and what its files share. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define APART __attribute__((noipa)) /* a function that stays as it is written, and is called */
#define PAGE 4096ul
#define VIRT_BASE 0xffffffff80000000ul
#define M2P ((const u64 *)0xffff800000000000ul)

enum {
    SET_TRAP_TABLE = 0, MMU_UPDATE = 1, STACK_SWITCH = 3, FPU_TASKSWITCH = 5, SET_DEBUGREG = 8, GET_DEBUGREG = 9,
    MULTICALL = 13, UPDATE_VA_MAPPING = 14, SET_TIMER_OP = 15, XEN_VERSION = 17, MMUEXT_OP = 26, SCHED_OP = 29,
    CALLBACK_OP = 30, EVENT_CHANNEL_OP = 32, PHYSDEV_OP = 33,
};
enum { SCHED_yield = 0, SCHED_block = 1, SCHED_shutdown = 2 };
enum { EVTCHN_bind_virq = 1, EVTCHN_send = 4, EVTCHN_unmask = 9 };
enum { MMUEXT_NEW_BASEPTR = 5, MMUEXT_NEW_USER_BASEPTR = 15 };
enum { DOMID_SELF = 0x7ff0, INVLPG = 2, PTE = 0x27, PTE_READ_ONLY = 0x25 }; /* present, writable, user, accessed */
enum { TF = 0x100 };

struct start_info {
    char magic[32];
    u64 nr_pages, shared_info;
    u32 flags, pad0;
    u64 store_mfn;
    u32 store_evtchn, pad1;
    u64 console_mfn;
    u32 console_evtchn, pad2;
    u64 pt_base, nr_pt_frames, mfn_list, mod_start, mod_len;
    char cmd_line[1024];
};

struct vcpu_info {
    u8 pending, mask;
    u64 selector, cr2, pad;
    u32 version, pad1;
    u64 tsc, system_time;
    u32 multiplier;
    signed char shift;
    u8 flags[3];
};

struct shared_info {
    struct vcpu_info vcpu[32];
    u64 pending[64], mask[64];
};

struct console {
    char in[1024], out[2048];
    u32 in_consumer, in_producer, out_consumer, out_producer;
};

/* What a trap's entry leaves on the stack. */
struct frame {
    u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    u64 vector, code, rip, cs, rflags, rsp, ss;
};

static inline long hypercall(long number, u64 a, u64 b, u64 c, u64 d)
{
    register u64 fourth asm("r10") = d;
    asm volatile("syscall" : "+a"(number), "+D"(a), "+S"(b), "+d"(c), "+r"(fourth) : : "rcx", "r11", "memory");
    return number;
}

/* kernel.c */
extern const struct start_info *start_info;
extern struct shared_info *shared;
extern u64 int3s, int3_rip, steps, step_rip, debug_hits, debug_writes, faults, fault_address, int80s, ticks;
void say(const char *text);
void tell(const char *name, u64 value);
u64 mfn_of(const void *page);
long map(u64 address, u64 entry);
void power_off(void) __attribute__((noreturn));

/* What sections.c does for the command line. */
void run_sections(const char *names);

/* spots.S: each at_… is the instruction itself, behind_… the next one. */
long do_syscall(void), do_int80(u64), do_iret(void), do_load(const void *), do_skipped_load(const void *);
u64 do_cpuid(u32 leaf), do_rdtsc(void), do_flags(void);
void do_movs(void *to, const void *from, u64 size), do_stos(void *to, u64 size, u8 value);
void do_out(u16 port, u8 value), do_int3(void), do_single_steps(void);
u8 do_in(u16 port);
u64 do_registers(u64 rbx, double *xmm, long double *st);
u64 do_user(u64 argument);
long paged_code(long x);
extern char at_skipped_load[], behind_skipped_load[], sled[], paged_code_page[], user_code[];

/* entry.S */
extern char trap_1[], trap_3[], trap_13[], trap_14[], trap_128[], event_callback[], failsafe_callback[];
extern char syscall_callback[];
