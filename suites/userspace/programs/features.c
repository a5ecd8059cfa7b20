/*
 * What CPUID offers must run and give the right result; AVX and XSAVE must be wholly there or wholly absent.
 * Each row: a bit (leaf, register, bit number), a few instructions, the number they must leave in rax.
 */
#include "faults.h"

#include <cpuid.h>
#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { EAX, EBX, ECX, EDX };

static uint64_t result;

/* The instructions run with rdi at 16 bytes: 0..15. They leave their answer in rax, which is then stored. */
#define FEATURE(name, code)                                             \
    code_t name;                                                        \
    asm(".text\n" #name ": " code "\n mov %rax, (%rsi)\n ret\n")

FEATURE(run_cmov, "mov $5, %edx; xor %eax, %eax; cmovz %edx, %eax");
FEATURE(run_clflush, "clflush (%rdi); mov $1, %eax");
FEATURE(run_mmx, "movq (%rdi), %mm0; paddb %mm0, %mm0; movq %mm0, %rax; emms");
FEATURE(run_sse2, "movdqu (%rdi), %xmm0; paddq %xmm0, %xmm0; movq %xmm0, %rax");
FEATURE(run_sse3, "lddqu (%rdi), %xmm0; movddup %xmm0, %xmm1; movhlps %xmm1, %xmm2; movq %xmm2, %rax");
FEATURE(run_pclmul, "movdqu (%rdi), %xmm0; pclmulqdq $0, %xmm0, %xmm0; movq %xmm0, %rax");
FEATURE(run_ssse3, "movdqu (%rdi), %xmm0; pshufb %xmm0, %xmm0; palignr $8, %xmm0, %xmm0; movq %xmm0, %rax");
FEATURE(run_sse41, "movdqu (%rdi), %xmm0; pmulld %xmm0, %xmm0; pextrq $0, %xmm0, %rax");
FEATURE(run_sse42, "mov $0xffffffff, %eax; crc32q (%rdi), %rax");
FEATURE(run_movbe, "movbe (%rdi), %rax");
FEATURE(run_popcnt, "popcntq (%rdi), %rax");
FEATURE(run_aes, "movdqu (%rdi), %xmm0; aesenc %xmm0, %xmm0; movq %xmm0, %rax");
FEATURE(run_cx16, "push %rbx; sub $24, %rsp; mov %rsp, %r8; and $-16, %r8; movq $3, (%r8); movq $4, 8(%r8);"
                  "mov $3, %eax; mov $4, %edx; mov $5, %ebx; mov $6, %ecx; lock cmpxchg16b (%r8); mov (%r8), %rax;"
                  "add 8(%r8), %rax; add $24, %rsp; pop %rbx");
FEATURE(run_rdrand, "1: rdrand %rax; jnc 1b; mov $1, %eax");
FEATURE(run_rdseed, "mov $100000, %ecx; 1: rdseed %rax; jc 2f; loop 1b; 2: mov $1, %eax");
FEATURE(run_bmi1, "mov (%rdi), %rcx; mov $0x0804, %edx; bextr %rdx, %rcx, %rax; andn %rcx, %rax, %rdx; blsi %rdx, %rdx;"
                  "tzcnt %rdx, %rdx; add %rdx, %rax");
FEATURE(run_bmi2, "mov (%rdi), %rcx; mov $0x0f0f0f0f, %edx; pext %rdx, %rcx, %rax; rorx $4, %rax, %rax;"
                  "shlx %rdx, %rax, %rax");
FEATURE(run_adx, "xor %edx, %edx; mov $7, %eax; stc; adcx %rdx, %rax; adox %rdx, %rax");
FEATURE(run_clflushopt, "clflushopt (%rdi); mov $1, %eax");
FEATURE(run_clwb, "clwb (%rdi); mov $1, %eax");
FEATURE(run_sha, "movdqu (%rdi), %xmm0; sha1msg1 %xmm0, %xmm0; movq %xmm0, %rax");
FEATURE(run_rdpid, "rdpid %rax; rdtscp; rdpid %rax; sub %rcx, %rax");
FEATURE(run_rdtscp, "rdtscp; mov %rdx, %rax; shl $32, %rax; or %rax, %rdx; mov $1, %eax");
FEATURE(run_lahf, "xor %eax, %eax; stc; lahf; shr $8, %eax; and $1, %eax");
FEATURE(run_lzcnt, "mov $0x10, %eax; lzcnt %rax, %rax");
FEATURE(run_sse4a, "movdqu (%rdi), %xmm0; extrq $8, $8, %xmm0; movq %xmm0, %rax");
FEATURE(run_prefetchw, "prefetchw (%rdi); mov $1, %eax");
FEATURE(run_avx, "vmovdqu (%rdi), %xmm0; vpaddq %ymm0, %ymm0, %ymm1; vmovq %xmm1, %rax; vzeroupper");
FEATURE(run_avx2, "vbroadcasti128 (%rdi), %ymm0; vpaddq %ymm0, %ymm0, %ymm0; vpermq $0x4e, %ymm0, %ymm0;"
                  "vextracti128 $1, %ymm0, %xmm0; vmovq %xmm0, %rax; vzeroupper");
FEATURE(run_f16c, "mov $0x3c00, %eax; vmovd %eax, %xmm0; vcvtph2ps %xmm0, %xmm1; vmovd %xmm1, %eax; vzeroupper");
FEATURE(run_vaes, "vbroadcasti128 (%rdi), %ymm0; vaesenc %ymm0, %ymm0, %ymm0; vextracti128 $1, %ymm0, %xmm0;"
                  "vmovq %xmm0, %rax; vzeroupper");
FEATURE(run_3dnow, "mov $0x3f800000, %eax; movd %eax, %mm0; pfadd %mm0, %mm0; movd %mm0, %eax; emms");
FEATURE(run_3dnowext, "movq (%rdi), %mm0; pswapd %mm0, %mm0; movq %mm0, %rax; emms");
FEATURE(run_fma, "vpxor %xmm0, %xmm0, %xmm0; vfmadd213sd %xmm0, %xmm0, %xmm0; vmovq %xmm0, %rax");
FEATURE(run_xgetbv, "xor %ecx, %ecx; xgetbv; and $3, %eax");
FEATURE(run_xsave, "sub $5000, %rsp; mov %rsp, %r8; and $-64, %r8; movq $0, 512(%r8); movq $0, 520(%r8); mov $3, %eax;"
                   "xor %edx, %edx; xsave (%r8); xrstor (%r8); add $5000, %rsp; mov $1, %eax");

#define N 0x0706050403020100

static const struct feature {
    const char *name;
    code_t *code;
    unsigned leaf, reg, bit;
    uint64_t result;
} all[] = {
    {"cmov", run_cmov, 1, EDX, 15, 5},
    {"clflush", run_clflush, 1, EDX, 19, 1},
    {"mmx", run_mmx, 1, EDX, 23, 0x0e0c0a0806040200},
    {"sse2", run_sse2, 1, EDX, 26, 2 * N},
    {"sse3", run_sse3, 1, ECX, 0, N},
    {"pclmulqdq", run_pclmul, 1, ECX, 1, 0x0005000400010000},
    {"ssse3", run_ssse3, 1, ECX, 9, 0x0f0e0d0c0b0a0908},
    {"cmpxchg16b", run_cx16, 1, ECX, 13, 11},
    {"sse4.1", run_sse41, 1, ECX, 19, 0x7449281004010000},
    {"sse4.2", run_sse42, 1, ECX, 20, 0x75d343c4},
    {"movbe", run_movbe, 1, ECX, 22, 0x0001020304050607},
    {"popcnt", run_popcnt, 1, ECX, 23, 12},
    {"aes", run_aes, 1, ECX, 25, 0x56356828465e6b6a},
    {"xsave", run_xsave, 1, ECX, 27, 1},
    {"xgetbv", run_xgetbv, 1, ECX, 27, 3},
    {"rdrand", run_rdrand, 1, ECX, 30, 1},
    {"bmi1", run_bmi1, 7, EBX, 3, 0x18},
    {"bmi2", run_bmi2, 7, EBX, 8, 0x1908000},
    {"rdseed", run_rdseed, 7, EBX, 18, 1},
    {"adx", run_adx, 7, EBX, 19, 8},
    {"clflushopt", run_clflushopt, 7, EBX, 23, 1},
    {"clwb", run_clwb, 7, EBX, 24, 1},
    {"sha", run_sha, 7, EBX, 29, 0x0808080808080808},
    {"rdpid", run_rdpid, 7, ECX, 22, 0},
    {"lahf", run_lahf, 0x80000001, ECX, 0, 1},
    {"lzcnt", run_lzcnt, 0x80000001, ECX, 5, 59},
    {"sse4a", run_sse4a, 0x80000001, ECX, 6, 1},
    {"prefetchw", run_prefetchw, 0x80000001, ECX, 8, 1},
    {"rdtscp", run_rdtscp, 0x80000001, EDX, 27, 1},
    {"3dnow", run_3dnow, 0x80000001, EDX, 31, 0x40000000},
    {"3dnowext", run_3dnowext, 0x80000001, EDX, 30, 0x0302010007060504},
    {"avx", run_avx, 1, ECX, 28, 2 * N},
    {"avx2", run_avx2, 7, EBX, 5, 2 * N},
    {"f16c", run_f16c, 1, ECX, 29, 0x3f800000},
    {"vaes", run_vaes, 7, ECX, 9, 0x56356828465e6b6a},
    {"fma", run_fma, 1, ECX, 12, 0},
};

static int offered(unsigned leaf, unsigned reg, unsigned bit)
{
    unsigned registers[4] = {0};
    if (!__get_cpuid_count(leaf, 0, registers, registers + 1, registers + 2, registers + 3))
        return 0;
    return registers[reg] >> bit & 1;
}

static void run(const struct feature *feature)
{
    static const uint8_t input[32] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    result = ~feature->result;
    provoke(feature->code, (uintptr_t)input, (uintptr_t)&result);
}

/* With no OSXSAVE there is no XCR0, so no AVX, and their instructions are undefined (Intel SDM vol. 1, 14.3). */
static void extended_state_is_consistent(void)
{
    static const struct feature absent[] = {{.name = "xgetbv", .code = run_xgetbv}, {.name = "avx", .code = run_avx}};
    int avx = offered(1, ECX, 28), osxsave = offered(1, ECX, 27);
    CHECK(!avx || osxsave, "AVX is offered without OSXSAVE");
    CHECK(!offered(7, EBX, 5) || avx, "AVX2 is offered without AVX");
    CHECK(!offered(1, ECX, 12) || avx, "FMA is offered without AVX");
    CHECK(!offered(1, ECX, 29) || avx, "F16C is offered without AVX");
    for (int i = 0; i < 2 && !osxsave; i++) {
        run(&absent[i]);
        CHECK(caught.signal == SIGILL, "%s is not offered, yet it gives %s", absent[i].name,
              caught.signal ? strsignal(caught.signal) : "a result");
    }
}

/* AT_HWCAP as the kernel wrote it: getauxval() gives the C library's own idea of it. */
static unsigned long kernels_view(void)
{
    Elf64_auxv_t entry;
    int fd = TRY(open("/proc/self/auxv", O_RDONLY));
    do
        read_all(fd, &entry, sizeof entry);
    while (entry.a_type != AT_HWCAP);
    close(fd);
    return entry.a_un.a_val;
}

void features(void)
{
    unsigned registers[4];
    int count = 0;
    catch_faults();
    CHECK(__get_cpuid(1, registers, registers + 1, registers + 2, registers + 3), "cpuid has no leaf 1");
    CHECK((kernels_view() & ~registers[EDX]) == 0, "AT_HWCAP %#lx has bits that CPUID's %#x lacks", kernels_view(),
          registers[EDX]);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!offered(all[i].leaf, all[i].reg, all[i].bit))
            continue;
        run(&all[i]);
        CHECK(!caught.signal, "%s is offered, yet it gives %s", all[i].name, strsignal(caught.signal));
        CHECK(result == all[i].result, "%s left %#lx, not %#lx", all[i].name, result, all[i].result);
        count++;
    }
    extended_state_is_consistent();
    note("offered and right: %d of %zu", count, sizeof all / sizeof *all);
}
