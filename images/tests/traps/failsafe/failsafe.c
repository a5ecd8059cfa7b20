/* failsafe: selectors that cannot be loaded any more when the vCPU runs again after others.

   The CPU is given up by sched_op. On the way back DS, ES, FS and GS are loaded; if one cannot be, it becomes 0, and
   the failsafe callback runs. Its frame has the selectors as they were, below rip (domain.c, load_segments). */
#include "descriptors.h"

#if BITS == 64 /* a 32-bit kernel that has lost DS can do nothing; images/tests/pae has its failsafe frame */
static u64 *gdt;
static struct frame seen;
static u8 seen_mask;
static unsigned times;
static u16 live[4];

static int look(struct frame *frame)
{
    if (frame->vector != FROM_FAILSAFE)
        return 0;
    times++;
    seen = *frame;
    seen_mask = shared->vcpu[0].mask;
    asm volatile("mov %%ds, %0\nmov %%es, %1\nmov %%fs, %2\nmov %%gs, %3"
                 : "=m"(live[0]), "=m"(live[1]), "=m"(live[2]), "=m"(live[3]));
    return 1;
}

static void set_up(void)
{
    on_trap = look;
    gdt = table();
    MUST(update(address_of(gdt + 1), 0x00cff2000000ffffull));
    MUST(update(address_of(gdt + 2), 0x00cff2000000ffffull));
    use_gdt(gdt);
}

static void yield(void)
{
    hypercall(SCHED_OP, SCHED_yield, 0);
}

static void yield_once(word unused)
{
    (void)unused;
    yield();
}

static void forget(unsigned n)
{
    MUST(hypercall(UPDATE_DESCRIPTOR, address_of(gdt + n), 0));
}

VARIATION(frame, "one selector of four has lost its descriptor")
{
    set_up();
    asm volatile("mov %0, %%ds\nmov %1, %%es\nmov %0, %%fs\nmov %1, %%gs" : : "r"(0xb), "r"(0x13));
    yield();
    check_equal(times, 0, "as long as all are good, nothing");
    forget(1);
    yield();
    check_equal(times, 1, "the callback ran");
    check_equal(live[0], 0, "ds is 0");
    check_equal(live[1], 0x13, "es is as it was");
    check_equal(live[2], 0, "fs is 0");
    check_equal(live[3], 0x13, "gs is as it was");
    check_equal(seen.cs, (FLAT_KERNEL_CS & ~3) | (word)1 << 32, "cs and the mask");
    check_equal(seen.ss, FLAT_KERNEL_SS, "ss");
    check_equal(seen.live_cs, FLAT_KERNEL_CS, "the handler's cs");
    check_equal(seen.rflags & 0x200, 0, "IF, as events were masked");
    check_equal(seen.rax, 0, "rax is the hypercall's result");
    yield();
    check_equal(times, 1, "once");
}

VARIATION(selectors, "the selectors in the frame")
{
    set_up();
    on_trap = 0;
    asm volatile("mov %0, %%ds\nmov %1, %%es\nmov %0, %%fs\nmov %1, %%gs" : : "r"(0xb), "r"(0x13));
    forget(1);
    forget(2);
    check(TRY("mov $29, %%eax\nxor %%edi, %%edi\nsyscall", : : : "rax", "rdi", "rcx", "r11", "memory"), "the callback",
          "none");
    check_equal(fault.vector, FROM_FAILSAFE, "is the failsafe callback");
    check_equal(fault.selectors[0], 0xb, "ds");
    check_equal(fault.selectors[1], 0x13, "es");
    check_equal(fault.selectors[2], 0xb, "fs");
    check_equal(fault.selectors[3], 0x13, "gs");
    check_equal(fault.entry_rsp, (fault.frame.rsp & -16ul) - 11 * 8, "where the frame is");
    check_equal(fault.frame.rcx, fault.frame.rip, "rcx");
}

VARIATION(mask, "events are masked if it was registered so")
{
    set_up();
    u8 *mask = &shared->vcpu[0].mask;
    *mask = 0;
    asm volatile("mov %0, %%ds" : : "r"(0xb));
    forget(1);
    yield();
    check_equal(seen_mask, 0, "not");
    MUST(set_callback(CALLBACKTYPE_failsafe, CALLBACKF_mask_events, (word)failsafe_callback));
    asm volatile("mov %0, %%ds" : : "r"(0x13));
    forget(2);
    yield();
    check_equal(seen_mask, 1, "masked");
    check_equal(seen.cs >> 32, 0, "the mask saved");
    check_equal(times, 2, "so many times");
    check_equal(*mask, 0, "after iret");
}

VARIATION(bases, "the bases of FS and GS stay")
{
    set_up();
    word at = (word)page(), value = 0;
    *(word *)at = 0x4321;
    asm volatile("mov %0, %%fs\nmov %0, %%gs" : : "r"(0xb));
    MUST(hypercall(SET_SEGMENT_BASE, 0, at));
    MUST(hypercall(SET_SEGMENT_BASE, 2, at));
    forget(1);
    yield();
    check_equal(times, 1, "the callback ran");
    asm volatile("mov %%fs:0, %0" : "=r"(value));
    check_equal(value, 0x4321, "FS");
    asm volatile("mov %%gs:0, %0" : "=r"(value));
    check_equal(value, 0x4321, "GS");
}

VARIATION(asleep, "a vCPU that slept meets it when it wakes")
{
    set_up();
    bind_virq(VIRQ_TIMER);
    asm volatile("mov %0, %%es" : : "r"(0xb));
    forget(1);
    set_timer(now() + 1000000);
    hypercall(SCHED_OP, SCHED_block, 0);
    mask_events();
    check_equal(times, 1, "the callback ran");
    check(events > 0, "and the event after it", "none");
}

VARIATION(no_gdt, "no table at all")
{
    set_up();
    asm volatile("mov %0, %%ds" : : "r"(0xb));
    MUST(hypercall(SET_GDT, 0, 0));
    yield();
    check_equal(times, 1, "the callback ran");
    check_equal(live[0], 0, "ds is 0");
}

VARIATION(flat, "Xen's own segments can always be loaded")
{
    set_up();
    asm volatile("mov %0, %%ds\nmov %0, %%es\nmov %0, %%fs\nmov %1, %%gs" : : "r"(FLAT_KERNEL_SS), "r"(FLAT_KERNEL_CS));
    MUST(hypercall(SET_GDT, 0, 0));
    yield();
    check_equal(times, 0, "no callback");
}

VARIATION(none, "without a callback the guest goes on at address 0")
{
    set_up();
    MUST(set_callback(CALLBACKTYPE_failsafe, 0, 0));
    asm volatile("mov %0, %%ds" : : "r"(0xb));
    forget(1);
    check(caught(yield_once, 0), "a trap", "none");
    check_equal(fault.vector, PF, "#PF");
    check_equal(fault.frame.rip, 0, "at 0");
    check_equal(fault.code, 16, "as nothing is there to run");
}
#endif
