/* error-codes: of page faults and of selectors, and the address of a fault.

   Of a page fault's code Xen changes the user bit: the kernel runs in ring 3 as well, and what tells is which of the
   two ran (pv/traps.c, pv_inject_event). The address goes to vcpu_info and to mov from %cr2, whose value other traps
   leave alone. */
#include "descriptors.h"

#define AREA TEST_AREA(2)
enum { PRESENT = 1, WRITE = 2, BY_USER = 4, FETCH = 16 };

static void check_fault(const char *name, int taken, word code, word cr2)
{
    check(taken && fault.vector == PF && fault.code == code && fault.cr2 == cr2, name, "trap %u, code %lx, CR2 %p",
          taken ? fault.vector : 0, fault.code, (void *)fault.cr2);
}

#define LOAD(at) TRY("movb (%0), %%al", : : "r"(at) : "rax")
#define STORE(at) TRY("movb $1, (%0)", : : "r"(at) : "memory")

static void call(word at)
{
    ((void (*)(void))at)();
}

VARIATION(kernel, "page faults of the kernel")
{
    word hole = AREA, data = (word)page();
    u64 *locked = page();
    make_path(hole);
    MUST(read_only(locked));
    check_fault("a load, not mapped", LOAD(hole + 5), 0, hole + 5);
    check_fault("a store, not mapped", STORE(hole + 6), WRITE, hole + 6);
    check_fault("a load without any table", LOAD(TEST_AREA(9)), 0, TEST_AREA(9));
    check_fault("a store to a page mapped read-only", STORE(locked + 1), PRESENT | WRITE, (word)(locked + 1));
    check_fault("a locked exchange there", TRY("lock cmpxchg %%" AX ", (%0)", : : "r"(locked) : "rax", "memory"),
                PRESENT | WRITE, (word)locked);
    check_fault("a call, not mapped", caught(call, hole), FETCH, hole);
    check_equal(fault.frame.rip, hole, "rip is where the call went");
    MUST(map(data, address_of((void *)data) | DATA | NX));
    check_fault("a call of a page that is not executable", caught(call, data + 3), PRESENT | FETCH, data + 3);
    check_fault("a store to the M2P", STORE(M2P), PRESENT | WRITE, (word)M2P);
}

VARIATION(borders, "the address is that of the first byte that could not be had")
{
    word last = (word)page(), next = (word)page();
    MUST(unmap((void *)next));
    check_fault("a load over the border", TRY("mov (%0), %%" AX, : : "r"(next - 3) : "rax"), 0, next);
    check_fault("a store over the border", TRY("mov %%" AX ", (%0)", : : "r"(next - 3) : "rax", "memory"), WRITE, next);
    check_equal(*(u32 *)(next - 4), 0, "nothing was stored");
    MUST(unmap((void *)last));
    check_fault("both pages", TRY("mov (%0), %%" AX, : : "r"(next - 3) : "rax"), 0, next - 3);
    check_fault("a string", TRY("mov %0, %%" DI "\nmov $9, %%ecx\nrep stosb", : : "r"(last - 4) : "rax", "rcx", "rdi",
              "memory"),
                WRITE, last);
    check_equal(fault.frame.rcx, 5, "how much of the string is left");
    check_equal(fault.frame.rdi, last, "where it goes on");
}

VARIATION(cr2, "where a fault's address can be read, and what changes it")
{
    LOAD(TEST_AREA(3) + 0x123);
    check_equal(read_cr2(), TEST_AREA(3) + 0x123, "mov from CR2");
    check_equal(shared->vcpu[0].cr2, TEST_AREA(3) + 0x123, "vcpu_info");
    TRY("hlt", :);
    TRY("int3", :);
    TRY("ud2", :);
    check_equal(read_cr2(), TEST_AREA(3) + 0x123, "other traps leave it");
    asm volatile("mov %0, %%cr2" : : "r"(0x4444ul));
    check_equal(read_cr2(), 0x4444, "mov to CR2");
    check_equal(shared->vcpu[0].cr2, 0x4444, "and vcpu_info then");
}

USER __attribute__((naked)) static void user_load(void)
{
    asm("mov (%" DI "), %" AX);
}

USER __attribute__((naked)) static void user_store(void)
{
    asm("mov %" AX ", (%" DI ")");
}

USER __attribute__((naked)) static void user_jump(void)
{
    asm("jmp *%" DI);
}

static void check_user(const char *name, const void *code, word at, word error)
{
    user(code, at);
    check(fault.vector == PF && fault.from_user && fault.code == error && fault.cr2 == at, name,
          "trap %u from %s, code %lx, CR2 %p", fault.vector, fault.from_user ? "user code" : "the kernel", fault.code,
          (void *)fault.cr2);
}

VARIATION(by_user, "page faults of user code")
{
    check_user("a load, not mapped", user_load, USER_DATA + PAGE, BY_USER);
    check_user("a store, not mapped", user_store, USER_DATA + PAGE, BY_USER | WRITE);
    check_user("a jump, not mapped", user_jump, USER_DATA + PAGE, BY_USER | FETCH);
    check_user("a store to its code", user_store, USER_CODE, BY_USER | PRESENT | WRITE);
    check_user("a load of the kernel's memory", user_load, VIRT_BASE, BITS == 64 ? BY_USER : BY_USER | PRESENT);
    MUST(update(entry_address(USER_DATA, 1), entry(USER_DATA, 1) | NX));
    check_user("a jump to data", user_jump, USER_DATA, BY_USER | PRESENT | FETCH);
}

static void check_code(const char *name, int taken, unsigned vector, word code)
{
    check(taken && fault.vector == vector && fault.code == code && fault.frame.rip == fault.at, name,
          "trap %u, code %lx, rip %lx instead of %lx", taken ? fault.vector : 0, fault.code, fault.frame.rip, fault.at);
}

VARIATION(protection, "general protection and stack faults")
{
#if BITS == 64
    check_code("a load from no address", LOAD(NON_CANONICAL), GP, 0);
    check_code("a store to one", STORE(NON_CANONICAL), GP, 0);
    check_code("a load by way of rbp", TRY("mov (%%rbp, %0), %%" AX,
              : : "r"(NON_CANONICAL - (word)__builtin_frame_address(0)) : "rax"), SS, 0);
    check_code("the stack at one, by rsp", TRY("mov (%%" SP ", %0), %%" AX,
              : : "r"(NON_CANONICAL + PAGE - (word)__builtin_frame_address(0)) : "rax"), SS, 0);
    check_code("a register that is not the stack's", TRY("mov (%0), %%" AX, : : "b"(NON_CANONICAL) : "rax"), GP, 0);
#endif
    check_code("hlt", TRY("hlt", :), GP, 0);
    check_code("a selector behind the table", TRY("mov %0, %%ds", : : "r"(0xfff8 | 3)), GP, 0xfff8);
    check_code("a code segment for SS", TRY("mov %0, %%ss", : : "r"(FLAT_KERNEL_CS)), GP, FLAT_KERNEL_CS & ~3);
    check_code("Xen's own data segment", TRY("mov %0, %%es", : : "r"(0xe010)), GP, 0xe010);
    check_code("no LDT", TRY("mov %0, %%fs", : : "r"(0x0c | 3)), GP, 0x0c);
    check_code("no SS", TRY("mov %0, %%ss", : : "r"(0)), GP, 0);
    check_code("an interrupt", TRY("int $0x44", :), GP, 0x44 << 3 | 2);
    check_code("the interrupt of a page fault", TRY("int $14", :), GP, 14 << 3 | 2);
}

VARIATION(absent, "segments that are not present")
{
    u64 *gdt = table();
    const u64 ring = FLAT_KERNEL_CS & 3, level = ring << 45;
    MUST(update(address_of(gdt + 1), 0x00cf12000000ffffull | level)); /* data, not present */
    MUST(update(address_of(gdt + 2), (BITS == 64 ? 0x00af1a000000ffffull : 0x00cf1a000000ffffull) | level)); /* code */
    use_gdt(gdt);
    check_code("a data segment", TRY("mov %0, %%ds", : : "r"((word)(8 | ring))), NP, 8);
    check_code("the stack's", TRY("mov %0, %%ss", : : "r"((word)(8 | ring))), SS, 8);
    struct { word at; u16 cs; } __attribute__((packed)) target = {VIRT_BASE, 16 | ring};
    check_code("a far jump", TRY(FAR_JUMP " *%0", : : "m"(target)), NP, 16);
}
