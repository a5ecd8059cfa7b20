/*
 * A 32-bit program without a C library: system calls by int $0x80 and by the vDSO, signals with and without a
 * restorer, faults, a thread-local segment, and a visit to 64-bit code. Ends with status 42.
 */
#include <stddef.h>
#include <stdint.h>

/* System-call numbers and structures of the i386 ABI (asm/unistd_32.h, asm/sigcontext.h, asm/ldt.h). */
enum {
    EXIT = 1, FORK = 2, READ = 3, WRITE = 4, WAITPID = 7, GETPID = 20, KILL = 37, PIPE = 42, BRK = 45, MMAP_OLD = 90,
    MUNMAP = 91, SCHED_YIELD = 158, SIGACTION = 174, MMAP2 = 192, SET_THREAD_AREA = 243,
};
enum { SIGILL = 4, SIGTRAP = 5, SIGFPE = 8, SIGUSR1 = 10, SIGSEGV = 11 };
enum { SA_SIGINFO = 4, SA_NODEFER = 0x40000000, SA_RESTORER = 0x04000000 };
enum { AT_SYSINFO = 32, AT_SYSINFO_EHDR = 33, ENOSYS = 38, EFAULT = 14, SI_KERNEL = 0x80 };

struct siginfo32 {
    int signal, error, code;
    uint32_t address;
};
struct ucontext32 {
    uint32_t flags, link, stack[3];
    uint32_t gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax, trap, error, eip, cs, eflags, esp_at, ss;
};
struct sigaction32 {
    void (*handler)(int, struct siginfo32 *, struct ucontext32 *);
    uint32_t flags;
    void (*restorer)(void);
    uint32_t mask[2];
};

#define TEXT(number) TEXT_(number)
#define TEXT_(number) #number
#define CHECK(condition) \
    do {                 \
        if (!(condition)) \
            fail("32-bit: not " #condition " (compat32.c:" TEXT(__LINE__) ")\n"); \
    } while (0)

static uint32_t call6(uint32_t number, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f);
static uint32_t vsyscall; /* the address of the vDSO's __kernel_vsyscall */
static uint32_t *auxiliary;

/* number, a … f on the stack; through int $0x80 or through `vsyscall`. */
uint32_t by_int80(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t);
uint32_t by_vsyscall(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t);
void restorer(void);
#define ARGUMENTS                                                                                              \
    "push %ebx; push %esi; push %edi; push %ebp\n"                                                             \
    "mov 20(%esp), %eax; mov 24(%esp), %ebx; mov 28(%esp), %ecx; mov 32(%esp), %edx; mov 36(%esp), %esi\n"     \
    "mov 40(%esp), %edi; mov 44(%esp), %ebp\n"
asm(".text\n"
    ".globl _start\n"
    "_start: mov %esp, %eax; and $-16, %esp; sub $12, %esp; push %eax; call start\n"
    "by_int80: " ARGUMENTS "int $0x80\n pop %ebp; pop %edi; pop %esi; pop %ebx; ret\n"
    "by_vsyscall: " ARGUMENTS "call *vsyscall\n pop %ebp; pop %edi; pop %esi; pop %ebx; ret\n"
    "restorer: mov $173, %eax; int $0x80\n"); /* rt_sigreturn */

static uint32_t call6(uint32_t number, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f)
{
    return by_int80(number, a, b, c, d, e, f);
}
#define CALL(number, a, b, c) call6(number, (uint32_t)(a), (uint32_t)(b), (uint32_t)(c), 0, 0, 0)

static _Noreturn void fail(const char *text)
{
    uint32_t size = 0;
    while (text[size])
        size++;
    CALL(WRITE, 1, "!", 1);
    CALL(WRITE, 1, text, size);
    for (;;)
        CALL(EXIT, 1, 0, 0);
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static uint32_t auxiliary_value(uint32_t kind)
{
    for (uint32_t *at = auxiliary; at[0]; at += 2)
        if (at[0] == kind)
            return at[1];
    return 0;
}

/* mmap2 has six arguments: the last travels in ebp, which vsyscall's entry has to fetch from the stack. */
static void memory(void)
{
    for (int way = 0; way < 2; way++) {
        uint32_t (*call)(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t) =
            way ? by_vsyscall : by_int80;
        uint32_t *area = (uint32_t *)call(MMAP2, 0, 64 * 4096, 3, 0x22, (uint32_t)-1, 0);
        CHECK((uint32_t)area < 0xfffff000u);
        for (uint32_t i = 0; i < 64 * 1024; i++)
            area[i] = i * 2654435761u;
        for (uint32_t i = 0; i < 64 * 1024; i++)
            CHECK(area[i] == i * 2654435761u);
        CHECK(call(MMAP2, 0, 4096, 3, 2, (uint32_t)-1, 0) == (uint32_t)-9); /* no such file: EBADF */
        CHECK(call(MUNMAP, (uint32_t)area, 64 * 4096, 0, 0, 0, 0) == 0);
    }
    uint32_t end = CALL(BRK, 0, 0, 0);
    CHECK(CALL(BRK, end + 8192, 0, 0) == end + 8192);
    *(volatile uint32_t *)(end + 8188) = 5;
}

/* int $0x80 keeps every register but eax. */
static void registers(void)
{
    uint32_t sum;
    for (int i = 0; i < 100; i++) {
        asm volatile("push %%ebp\n mov $16, %%ebp\n mov $20, %%eax\n int $0x80\n"
                     "lea (%%ebx,%%ecx), %%eax\n add %%edx, %%eax\n add %%esi, %%eax\n add %%edi, %%eax\n"
                     "add %%ebp, %%eax\n pop %%ebp"
                     : "=&a"(sum) : "b"(1), "c"(2), "d"(4), "S"(8), "D"(32) : "memory");
        CHECK(sum == 63);
    }
    CHECK(CALL(9999, 0, 0, 0) == (uint32_t)-ENOSYS);
    CHECK(CALL(-1, 0, 0, 0) == (uint32_t)-ENOSYS);
    CHECK(CALL(WRITE, 1, 0xfffff000u, 1) == (uint32_t)-EFAULT);
    if (vsyscall)
        for (int i = 0; i < 100; i++)
            CHECK(by_vsyscall(GETPID, 0, 0, 0, 0, 0, 0) == CALL(GETPID, 0, 0, 0));
}

static struct {
    int signal, code;
    uint32_t address, eip, trap, error;
} caught;
static uint32_t go_on_at;

static void handler(int signal, struct siginfo32 *info, struct ucontext32 *context)
{
    uint16_t ds, es, ss, cs;
    asm("mov %%ds, %0; mov %%es, %1; mov %%ss, %2; mov %%cs, %3" : "=r"(ds), "=r"(es), "=r"(ss), "=r"(cs));
    CHECK(ds == es && es == ss && (cs & 3) == 3 && context->cs == cs);
    caught.signal = signal, caught.code = info->code, caught.address = info->address;
    caught.eip = context->eip, caught.trap = context->trap, caught.error = context->error;
    if (go_on_at)
        context->eip = go_on_at;
}

static void catch(int signal, uint32_t flags)
{
    struct sigaction32 action = {handler, SA_SIGINFO | SA_NODEFER | flags, flags ? restorer : 0, {0, 0}};
    CHECK(call6(SIGACTION, signal, (uint32_t)&action, 0, 8, 0, 0) == 0);
}

/* FAULT(instructions, …): they fault at label 1; the handler goes on at label 2. */
#define FAULT(before, instruction, signal_is, code_is, address_is, trap_is, error_is)                        \
    do {                                                                                                     \
        uint32_t place, after;                                                                               \
        caught.signal = 0;                                                                                   \
        asm volatile("movl $2f, %0\n movl $1f, %1\n movl $3f, %2\n" before "\n1: " instruction "\n3:\n2:\n"  \
                     : "=m"(go_on_at), "=m"(place), "=m"(after) : : "eax", "ecx", "edx", "memory", "cc");    \
        go_on_at = 0;                                                                                        \
        uint32_t at = caught.trap == 3 || caught.trap == 4 ? after : place;                                  \
        CHECK(caught.signal == signal_is);                                                                   \
        CHECK(caught.code == code_is);                                                                       \
        CHECK(caught.trap == trap_is);                                                                       \
        CHECK(caught.error == error_is);                                                                     \
        CHECK(caught.eip == at);                                                                             \
        CHECK(caught.address == (address_is));                                                               \
        (void)place, (void)after;                                                                            \
    } while (0)

static void faults(void)
{
    static const int all[] = {SIGILL, SIGTRAP, SIGFPE, SIGSEGV};
    for (int i = 0; i < 4; i++)
        catch(all[i], i % 2 ? SA_RESTORER : 0);
    for (int i = 0; i < 10; i++) {
        FAULT("mov $0x123, %%eax", "mov (%%eax), %%ecx", SIGSEGV, 1, 0x123, 14, 4);
        FAULT("mov $0xffffe123, %%eax", "movb $1, (%%eax)", SIGSEGV, 1, 0xffffe123, 14, 6);
        FAULT("", "ud2", SIGILL, 2, place, 6, 0);
        FAULT("xor %%ecx, %%ecx; mov $1, %%eax; cltd", "idivl %%ecx", SIGFPE, 1, place, 0, 0);
        FAULT("", "int3", SIGTRAP, SI_KERNEL, 0, 3, 0);
        FAULT("mov $0x7f, %%al; add $1, %%al", "into", SIGSEGV, SI_KERNEL, 0, 4, 0);
        FAULT("push $5; push $3; mov $9, %%eax; mov %%esp, %%ecx; add $8, %%esp", "bound %%eax, -8(%%esp)", SIGSEGV,
              SI_KERNEL, 0, 5, 0);
        FAULT("", "cli", SIGSEGV, SI_KERNEL, 0, 13, 0);
        FAULT("", "inb $0x42, %%al", SIGSEGV, SI_KERNEL, 0, 13, 0);
        FAULT("", "int $0x21", SIGSEGV, SI_KERNEL, 0, 13, 0x10a);
        FAULT("mov $0x10, %%eax", "mov %%ax, %%ss", SIGSEGV, SI_KERNEL, 0, 13, 0x10);
    }
}

/* A signal comes while st(0) and xmm1 hold numbers: both survive, with the vDSO's restorer and with our own. */
static void signal_keeps_fpu(void)
{
    for (int i = 0; i < 50; i++) {
        uint32_t bits = 0x3f800000 + i, x87 = 0, sse = 0, pid = CALL(GETPID, 0, 0, 0), answer;
        catch(SIGUSR1, i % 2 ? SA_RESTORER : 0);
        caught.signal = 0;
        asm volatile("flds %5\n movss %5, %%xmm1\n int $0x80\n fstps %1\n movss %%xmm1, %2"
                     : "=a"(answer), "=m"(x87), "=m"(sse)
                     : "0"(KILL), "b"(pid), "m"(bits), "c"(SIGUSR1) : "memory");
        CHECK(answer == 0);
        CHECK(caught.signal == SIGUSR1);
        CHECK(x87 == bits);
        CHECK(sse == bits);
    }
}

static uint32_t local[2];

static void thread_area(uint32_t mine)
{
    struct {
        uint32_t entry, base, limit, flags;
    } area = {(uint32_t)-1, (uint32_t)local, 0xfff, 0x51}; /* 32-bit, limit in pages, usable */
    CHECK(CALL(SET_THREAD_AREA, &area, 0, 0) == 0);
    asm volatile("mov %w0, %%gs" : : "r"(area.entry << 3 | 3));
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t found;
        local[1] = mine + i;
        CALL(SCHED_YIELD, 0, 0, 0);
        asm volatile("mov %%gs:4, %0" : "=r"(found));
        CHECK(found == mine + i);
    }
}

static void processes(void)
{
    uint32_t pipes[2], word = 0, status = 0;
    CHECK(CALL(PIPE, pipes, 0, 0) == 0);
    uint32_t child = CALL(FORK, 0, 0, 0);
    if (child == 0) {
        thread_area(1000);
        word = 0x32323232;
        CHECK(CALL(WRITE, pipes[1], &word, 4) == 4);
        CALL(EXIT, 9, 0, 0);
    }
    thread_area(5000);
    CHECK(CALL(READ, pipes[0], &word, 4) == 4);
    CHECK(word == 0x32323232);
    CHECK(CALL(WAITPID, child, &status, 0) == child);
    CHECK(status == 9 << 8);
}

/* Linux gives every program the 64-bit code segment too, at selector 0x33. */
static void visit_64_bit_code(void)
{
    uint32_t low, high;
    for (int i = 0; i < 20; i++) {
        asm volatile("ljmp $0x33, $1f\n"
                     ".code64\n"
                     "1: mov $0x123456789abcdef0, %%rax\n"
                     "   mov %%rax, %%rdx\n"
                     "   shr $32, %%rdx\n"
                     "   mov $0x23, %%r8d\n"
                     "   push %%r8\n"
                     "   lea 2f(%%rip), %%r8\n"
                     "   push %%r8\n"
                     "   lretq\n"
                     ".code32\n"
                     "2:\n" : "=a"(low), "=d"(high) : : "memory");
        CHECK(low == 0x9abcdef0);
        CHECK(high == 0x12345678);
        CHECK(CALL(GETPID, 0, 0, 0) > 0);
    }
}

_Noreturn void start(uint32_t *stack);
_Noreturn void start(uint32_t *stack)
{
    char **environment = (char **)stack + 1 + stack[0] + 1;
    CHECK(stack[0] == 2);
    CHECK(same((char *)stack[2], "argument"));
    CHECK(same(environment[0], "VARIABLE=32"));
    auxiliary = (uint32_t *)environment + 2;
    vsyscall = auxiliary_value(AT_SYSINFO);
    CHECK(auxiliary_value(AT_SYSINFO_EHDR) != 0);
    CHECK(vsyscall != 0);
    registers();
    memory();
    faults();
    signal_keeps_fpu();
    processes();
    visit_64_bit_code();
    for (;;)
        CALL(EXIT, 42, 0, 0);
}
