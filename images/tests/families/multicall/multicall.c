/* multicall: several calls in one, each with its result in its entry (xen/common/multicall.c). */
#include "kit.h"

#define AREA TEST_AREA(1)

VARIATION(order, "calls are made in their order, and each result is where its call is")
{
    make_path(AREA);
    void *a = page(), *b = page();
    struct multicall_entry calls[4] = {
        {UPDATE_VA_MAPPING, 99, {AREA, VALUE(address_of(a) | DATA), 0}},
        {UPDATE_VA_MAPPING, 99, {AREA, VALUE(address_of(b) | DATA), 0}},
        {UPDATE_VA_MAPPING, 99, {TEST_AREA(9), VALUE(0), 0}},
        {XEN_VERSION, 99, {0, 0}},
    };
    check_equal(hypercall(MULTICALL, calls, 4), 0, "the call itself");
    check_equal(calls[0].result, 0, "the first");
    check_equal(calls[1].result, 0, "the second");
    check_equal(calls[2].result, -EINVAL, "the third fails alone");
    check_equal(calls[3].result, 4 << 16 | 17, "the fourth returns a value");
    check_equal(entry(AREA, 1) & ~ENTRY_FLAGS, address_of(b), "the second came after the first");
    check_equal(calls[0].args[0], AREA, "the arguments are as they were");
    check_equal(calls[0].op, UPDATE_VA_MAPPING, "and the numbers");
    MUST(map(AREA, 0));
    check_single_reference(a, "nothing holds the first page");
    check_single_reference(b, "nothing holds the second page");
}

VARIATION(preempted, "a list too long for one go is made in several, and each call once")
{
    enum { COUNT = 3000 };
    static struct multicall_entry calls[COUNT];
    word pfn = spare_pfn(), mfn = mfn_of_pfn(pfn);
    static struct mmu_update numbers[COUNT];
    for (int i = 0; i < COUNT; i++) {
        numbers[i] = (struct mmu_update){frame_address(mfn) | MACHPHYS_UPDATE, i};
        calls[i] = (struct multicall_entry){MMU_UPDATE, 99, {(word)&numbers[i], 1, 0, DOMID_SELF}};
    }
    calls[COUNT - 2].op = 60;
    check_equal(hypercall(MULTICALL, calls, COUNT), 0, "3000 calls");
    int wrong = 0;
    for (int i = 0; i < COUNT; i++)
        wrong += calls[i].result != (i == COUNT - 2 ? (word)-ENOSYS : 0);
    check_equal(wrong, 0, "3000 results");
    check_equal(M2P[mfn], COUNT - 1, "the last is done last");
    MUST(update(frame_address(mfn) | MACHPHYS_UPDATE, pfn));
}

VARIATION(preempted_inside, "a call that is too long is itself made in several, and the others come after it")
{
    enum { COUNT = 10000 };
    static struct mmu_update numbers[COUNT];
    word pfn = spare_pfn(), mfn = mfn_of_pfn(pfn);
    for (int i = 0; i < COUNT; i++)
        numbers[i] = (struct mmu_update){frame_address(mfn) | MACHPHYS_UPDATE, i};
    u32 count = 0;
    struct multicall_entry calls[3] = {
        {XEN_VERSION, 99, {0, 0}},
        {MMU_UPDATE, 99, {(word)numbers, COUNT, (word)&count, DOMID_SELF}},
        {XEN_VERSION, 99, {0, 0}},
    };
    check_equal(hypercall(MULTICALL, calls, 3), 0, "three calls");
    check_equal(calls[0].result, 4 << 16 | 17, "the first");
    check_equal(calls[1].result, 0, "the long one");
    check_equal(count, COUNT, "its count is of all of it");
    check_equal(calls[2].result, 4 << 16 | 17, "the third");
    check_equal(M2P[mfn], COUNT - 1, "the long one is done to its end");
    MUST(update(frame_address(mfn) | MACHPHYS_UPDATE, pfn));
}

VARIATION(no_room, "a result that cannot be stored ends the list; what was done stays")
{
    make_path(AREA);
    struct multicall_entry *calls = page();
    void *a = page();
    calls[0] = (struct multicall_entry){UPDATE_VA_MAPPING, 99, {AREA, VALUE(address_of(a) | DATA), 0}};
    calls[1] = (struct multicall_entry){UPDATE_VA_MAPPING, 99, {AREA + PAGE, VALUE(address_of(a) | DATA), 0}};
    MUST(read_only(calls));
    check_equal(hypercall(MULTICALL, calls, 2), -EFAULT, "the call fails");
    check(entry(AREA, 1) & P, "the first is done", "%llx", entry(AREA, 1));
    check_equal(entry(AREA + PAGE, 1), 0, "the second is not");
    check_equal(calls[0].result, 99, "there is no result");
}

VARIATION(iret, "iret ends the list: nothing behind it is called")
{
    make_path(AREA);
    void *a = page();
    struct multicall_entry calls[2] = {
        {IRET, 99, {0}},
        {UPDATE_VA_MAPPING, 99, {AREA, VALUE(address_of(a) | DATA), 0}},
    };
    word rax = MULTICALL;
#if BITS == 64
    asm volatile("mov %%rsp, %%r12\n"
                 "push $0xe02b\npush %%r12\npushfq\npush $0xe030\npush $1f\n"
                 "push $0\npush %%rcx\npush %%r11\npush $0x1234\n"
                 "syscall\nud2\n"
                 "1: mov %%r12, %%rsp\n"
                 : "+a"(rax)
                 : "D"(calls), "S"(2ul)
                 : "rcx", "r11", "r12", "memory");
#else
    asm volatile("push %%ebp\nmov %%esp, %%ebp\n"
                 "pushf\npush $0xe019\npush $1f\npush $0x1234\n"
                 "int $0x82\nud2\n"
                 "1: mov %%ebp, %%esp\npop %%ebp\n"
                 : "+a"(rax)
                 : "b"(calls), "c"(2)
                 : "memory");
#endif
    check_equal(rax, 0x1234, "rax is what iret says");
    check_equal(calls[1].result, 99, "the second call was not made");
    check_equal(entry(AREA, 1), 0, "nor has it done anything");
    check_equal(calls[0].result, 0x1234, "the result of the first is iret's rax");
    check_equal(hypercall(XEN_VERSION, 0), 4 << 16 | 17, "the next call is none in a list");
    struct multicall_entry one = {XEN_VERSION, 99, {0, 0}};
    check_equal(hypercall(MULTICALL, &one, 1), 0, "and a list can be made again");
    check_equal(one.result, 4 << 16 | 17, "with its result");
}
