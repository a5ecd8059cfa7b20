/* ports: in and out need the virtual I/O privilege level, or the bitmap; then there is nothing behind them.

   The kernel counts as ring 1, or as ring 0 with the architectural_iopl assist (pv/emul-priv-op.c, guest_io_okay). A
   domU reads ones, but for the index of the RTC and the address register of PCI, which Xen keeps. */
#include "kit.h"

enum { PHYSDEV_set_iopl = 6, PHYSDEV_set_iobitmap = 7, ASSIST_iopl = 4 };

static sword set_iopl(u32 level)
{
    return hypercall(PHYSDEV_OP, PHYSDEV_set_iopl, &level);
}

static int in_traps(u16 port)
{
    return TRY("in %%dx, %%al", : : "d"(port) : "rax");
}

static void check_refused(const char *name, int taken)
{
    check(taken && fault.vector == GP && fault.code == 0 && fault.frame.rip == fault.at, name, "trap %u, code %lx",
          taken ? fault.vector : 99, fault.code);
}

VARIATION(refused, "at level 0 each is a #GP at itself")
{
    check_refused("in, by number", TRY("in $0x80, %%al", : : : "rax"));
    check_refused("in", in_traps(0x3f8));
    check_refused("in, 16 bits", TRY("in %%dx, %%ax", : : "d"(0x3f8) : "rax"));
    check_refused("in, 32 bits", TRY("in %%dx, %%eax", : : "d"(0xcf8) : "rax"));
    check_refused("out", TRY("out %%al, %%dx", : : "a"(0), "d"(0x3f8)));
    check_refused("out, by number", TRY("out %%eax, $0x80", : : "a"(0)));
    word buffer[2] = {0};
    check_refused("ins", TRY("insb", : : "d"(0x3f8), "D"(buffer) : "memory"));
    check_refused("outs", TRY("outsb", : : "d"(0x3f8), "S"(buffer) : "memory"));
    check_refused("rep ins", TRY("rep insb", : : "c"(4), "d"(0x3f8), "D"(buffer) : "memory"));
    MUST(set_iopl(1));
    check(!in_traps(0x3f8), "at level 1", "trap %u", fault.vector);
    MUST(set_iopl(0));
    check_refused("and back", in_traps(0x3f8));
    MUST(hypercall(VM_ASSIST, 0, ASSIST_iopl));
    check(!in_traps(0x3f8), "as ring 0", "trap %u", fault.vector);
}

VARIATION(nothing, "what is read where nothing is")
{
    MUST(set_iopl(1));
    static const u16 some[] = {0, 0x20, 0x40, 0x60, 0x64, 0x71, 0x80, 0x3f8, 0xcfc, 0x1000, 0xfffc};
    static const char *const names[] = {"0x0", "0x20", "0x40", "0x60", "0x64", "0x71", "0x80", "0x3f8", "0xcfc",
                                        "0x1000", "0xfffc"};
    for (unsigned i = 0; i < sizeof some / sizeof *some; i++) {
        word bytes = 0, words = 0, longs = (word)0x1111111111111111;
        asm volatile("in %%dx, %%al" : "+a"(bytes) : "d"(some[i]));
        asm volatile("in %%dx, %%ax" : "+a"(words) : "d"(some[i]));
        asm volatile("in %%dx, %%eax" : "+a"(longs) : "d"(some[i]));
        check(bytes == 0xff && words == 0xffff && longs == 0xffffffff, names[i], "%lx, %lx, %lx", bytes, words,
                  longs);
    }
    word buffer[2] = {0, 0}, count = 4, to = (word)buffer;
    asm volatile("rep insb" : "+c"(count), "+D"(to) : "d"(0x3f8) : "memory");
    check_equal(buffer[0], 0xffffffff, "a string of them");
    check_equal(count, 0, "all of it");
}

VARIATION(strings, "from memory to a port and back, up and down, and the faults of both")
{
    MUST(set_iopl(1));
    static u32 sent[] = {0x80000010, 0x80000020, 0x80000030}, read[3];
    word count = 3, at = (word)sent, value;
    asm volatile("rep outsl" : "+c"(count), "+S"(at) : "d"(0xcf8) : "memory");
    asm volatile("in %%dx, %%eax" : "=a"(value) : "d"(0xcf8));
    check_equal(value, sent[2], "out: the last of three");
    check(!count && at == (word)(sent + 3), "none is left", "%lu, %lx", count, at);
    count = 3, at = (word)(read + 2);
    asm volatile("std\nrep insl\ncld" : "+c"(count), "+D"(at) : "d"(0xcf8) : "memory");
    check(read[0] == sent[2] && read[1] == sent[2] && read[2] == sent[2], "in, downwards", "%x, %x, %x", read[0],
          read[1], read[2]);
    check(!count && at == (word)read - 4, "all the way", "%lu, %lx", count, at);
    at = (word)read;
    asm volatile("insw" : "+D"(at) : "d"(0xcf8) : "memory");
    check(read[0] == (sent[2] | 0xffff) && at == (word)read + 2, "16 bits", "%x, %lx", read[0], at);
    u8 *gone = page();
    MUST(unmap(gone));
    count = 0, at = (word)gone;
    NO_TRAP("none of them", TRY("rep insb", : "+c"(count), "+D"(at) : "d"(0xcf8) : "memory"));
    check(TRY("insb", : : "d"(0xcf8), "D"(gone) : "memory") && fault.vector == PF && fault.code == 2 &&
              fault.cr2 == (word)gone && fault.frame.rip == fault.at,
          "in, to nowhere", "trap %u, code %lx, CR2 %lx", fault.vector, fault.code, fault.cr2);
    check(TRY("outsb", : : "d"(0xcf8), "S"(gone) : "memory") && fault.vector == PF && fault.code == 0 &&
              fault.cr2 == (word)gone && fault.frame.rip == fault.at,
          "out, from nowhere", "trap %u, code %lx, CR2 %lx", fault.vector, fault.code, fault.cr2);
}

VARIATION(kept, "what Xen keeps: PCI's address, the RTC's index")
{
    MUST(set_iopl(1));
    u32 value = 0;
    asm volatile("out %0, %1" : : "a"(0x80001234), "d"((u16)0xcf8));
    asm volatile("in %%dx, %%eax" : "=a"(value) : "d"(0xcf8));
    check_equal(value, 0x80001234, "PCI's address");
    value = 0;
    asm volatile("in %%dx, %%al" : "+a"(value) : "d"(0xcf8));
    check_equal(value, 0xff, "is nothing as a byte");
    asm volatile("out %%al, $0x70" : : "a"(0x0b));
    value = 0;
    asm volatile("in $0x70, %%al" : "+a"(value));
    check_equal(value, 0x0b, "the RTC's index");
    value = 0;
    asm volatile("in $0x70, %%ax" : "+a"(value));
    check_equal(value, 0xff0b, "beside its data, which is not there");
    value = 0;
    asm volatile("in $0x71, %%al" : "+a"(value));
    check_equal(value, 0xff, "as a byte");
}

static u8 *bitmap;

static void set_bitmap(u32 ports)
{
    struct { const void *bits; u32 ports; } arg = {bitmap, ports};
    MUST(hypercall(PHYSDEV_OP, PHYSDEV_set_iobitmap, &arg));
}

USER __attribute__((naked)) static void user_in(void)
{
    asm("mov %edi, %edx\nin %dx, %al\nmovzbl %al, %edi\n" USER_CALL);
}

VARIATION(bitmap, "the bitmap lets single ports through, to user code as well")
{
    bitmap = page();
    memset(bitmap, 0xff, PAGE);
    bitmap[0x70 / 8] = 0xfe;
    set_bitmap(0x400);
    check(!in_traps(0x70), "a port that is allowed", "trap %u", fault.vector);
    check_refused("its neighbour", in_traps(0x71));
    check_refused("both", TRY("in %%dx, %%ax", : : "d"(0x70) : "rax"));
    bitmap[0x78 / 8] = 0, bitmap[0x70 / 8] = 0x7f;
    NO_TRAP("two ports in two bytes", TRY("in %%dx, %%ax", : : "d"(0x77) : "rax"));
    set_bitmap(0x78);
    check_refused("over the limit", TRY("in %%dx, %%ax", : : "d"(0x77) : "rax"));
    check(!in_traps(0x77), "right below it", "trap %u", fault.vector);
    user(user_in, 0x77);
    check_equal(fault.vector, FROM_SYSCALL, "user code, though it does not see the bitmap");
    check_equal(fault.frame.rdi, 0xff, "what it read");
    user(user_in, 0x76);
    check_equal(fault.vector, GP, "and what it may not");
    MUST(unmap(bitmap));
    check_refused("a bitmap that is gone", in_traps(0x77));
}

VARIATION(user_level, "user code needs level 3")
{
    MUST(set_iopl(2));
    user(user_in, 0x80);
    check_equal(fault.vector, GP, "level 2");
    MUST(set_iopl(3));
    user(user_in, 0x80);
    check_equal(fault.vector, FROM_SYSCALL, "level 3");
    check_equal(fault.frame.rdi, 0xff, "what it read");
}
