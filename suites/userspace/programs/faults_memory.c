/* Page faults and what looks like one: si_addr to the byte, in each way a page can be wrong. */
#include "faults.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

FAULTING(load, "", "mov (%rdi), %eax");
FAULTING(store, "", "movb $1, (%rdi)");
FAULTING(store_wide, "mov $-1, %rax", "mov %rax, (%rdi)");
FAULTING(add_wide, "", "lock addq $1, (%rdi)");
FAULTING(push_wide, "mov %rsp, %rdx; mov %rdi, %rsp", "push %rdx");
FAULTING(jump, "", "jmp *%rdi");
FAULTING(copy, "mov $8192, %ecx", "rep movsb");
FAULTING(sse_load, "", "movups (%rdi), %xmm0");

static uint8_t *pages(int count, int protection)
{
    void *area = mmap(NULL, count * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED, "no memory");
    return area;
}

static uint8_t *past_end_of_file(void)
{
    FILE *file = tmpfile();
    int fd = file ? fileno(file) : (int)TRY(memfd_create("short", 0));
    TRY(ftruncate(fd, PAGE));
    void *area = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(area != MAP_FAILED, "no mapping of a file");
    return (uint8_t *)area + PAGE;
}

/* A page, then a hole: what crosses the border faults at the border, and leaves the first page alone. */
static void across_a_border(void)
{
    uint8_t *area = pages(2, PROT_READ | PROT_WRITE);
    uintptr_t border = (uintptr_t)area + PAGE;
    memset(area, 0x11, PAGE);
    TRY(munmap(area + PAGE, PAGE));
    const struct fault cases[] = {
        {"load across a border", load, border - 1, 0, load_at, SIGSEGV, SEGV_MAPERR, border, PF, USER},
        {"store across a border", store_wide, border - 3, 0, store_wide_at, SIGSEGV, SEGV_MAPERR, border, PF,
         USER | WRITE},
        {"16-byte load across a border", sse_load, border - 5, 0, sse_load_at, SIGSEGV, SEGV_MAPERR, border, PF, USER},
        {"rep movsb to a hole", copy, border - 100, (uintptr_t)area, copy_at, SIGSEGV, SEGV_MAPERR, border, PF,
         USER | WRITE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_fault(&cases[i]);
    CHECK(caught.rcx == 8192 - 100 && caught.rsi == (uintptr_t)area + 100 && caught.rdi == border,
          "rep movsb stopped with rcx %ld, rsi +%ld, rdi +%ld", caught.rcx, caught.rsi - (uintptr_t)area,
          caught.rdi - (uintptr_t)area);
    for (size_t i = 0; i < PAGE; i++)
        CHECK(area[i] == 0x11, "a store that faulted changed byte %zu of the page before", i);
}

void faults_memory(void)
{
    uint8_t *read_only = pages(1, PROT_READ), *none = pages(1, PROT_NONE), *hole = pages(1, PROT_READ);
    uint8_t *data = pages(1, PROT_READ | PROT_WRITE), *past = past_end_of_file();
    uintptr_t wild = 0x800000000000 - 2 * PAGE + 8, odd = 0xdead000000000008, kernel = 0xffffffff81000000;
    uintptr_t hypervisor = 0xffff830000000008; /* below, Xen lets every guest read its M2P */
    CHECK(*read_only == 0, "a fresh page is not zero");
    data[0] = 0xc3;
    TRY(munmap(hole, PAGE));
    catch_faults();
    const struct fault cases[] = {
        {"load from 0", load, 0, 0, load_at, SIGSEGV, SEGV_MAPERR, 0, PF, USER},
        {"store to 8", store, 8, 0, store_at, SIGSEGV, SEGV_MAPERR, 8, PF, USER | WRITE},
        {"load from a hole", load, (uintptr_t)hole + 5, 0, load_at, SIGSEGV, SEGV_MAPERR, (uintptr_t)hole + 5, PF,
         USER},
        {"load near the top", load, wild, 0, load_at, SIGSEGV, SEGV_MAPERR, wild, PF, USER},
        {"store to a read-only page that is present", store, (uintptr_t)read_only + 9, 0, store_at, SIGSEGV,
         SEGV_ACCERR, (uintptr_t)read_only + 9, PF, USER | WRITE | PRESENT},
        {"locked add to a read-only page", add_wide, (uintptr_t)read_only + 16, 0, add_wide_at, SIGSEGV, SEGV_ACCERR,
         (uintptr_t)read_only + 16, PF, USER | WRITE | PRESENT},
        {"load from PROT_NONE", load, (uintptr_t)none + 7, 0, load_at, SIGSEGV, SEGV_ACCERR, (uintptr_t)none + 7, PF,
         USER},
        {"store to the program's code", store, (uintptr_t)load_at, 0, store_at, SIGSEGV, SEGV_ACCERR,
         (uintptr_t)load_at, PF, USER | WRITE | PRESENT},
        {"jump to data", jump, (uintptr_t)data, 0, NULL, SIGSEGV, SEGV_ACCERR, (uintptr_t)data, PF,
         USER | PRESENT | FETCH},
        {"jump to a hole", jump, (uintptr_t)hole + 3, 0, NULL, SIGSEGV, SEGV_MAPERR, (uintptr_t)hole + 3, PF,
         USER | FETCH},
        {"push to a hole", push_wide, (uintptr_t)hole + 64, 0, push_wide_at, SIGSEGV, SEGV_MAPERR,
         (uintptr_t)hole + 56, PF, USER | WRITE},
        /* Linux hides whether a kernel page is there: it always reports it present. */
        {"load from the kernel", load, kernel, 0, load_at, SIGSEGV, SEGV_MAPERR, kernel, PF, USER | PRESENT},
        {"store to the kernel", store, kernel, 0, store_at, SIGSEGV, SEGV_MAPERR, kernel, PF, USER | PRESENT | WRITE},
        {"load from Xen's own range", load, hypervisor, 0, load_at, SIGSEGV, SEGV_MAPERR, hypervisor, PF,
         USER | PRESENT},
        {"jump to the kernel", jump, kernel, 0, NULL, SIGSEGV, SEGV_MAPERR, kernel, PF, USER | PRESENT | FETCH},
        {"load from a non-canonical address", load, odd, 0, load_at, SIGSEGV, SI_KERNEL, 0, GP, 0},
        {"load past a file's end", load, (uintptr_t)past + 11, 0, load_at, SIGBUS, BUS_ADRERR, (uintptr_t)past + 11,
         PF, USER},
        {"store past a file's end", store, (uintptr_t)past + 11, 0, store_at, SIGBUS, BUS_ADRERR,
         (uintptr_t)past + 11, PF, USER | WRITE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_fault(&cases[i]);
    across_a_border();
}
