/* failsafe: selectors that cannot be loaded any more when the vCPU runs again after others, in a 32-bit kernel.

   They become 0, and the failsafe callback finds ds, es, fs and gs as they were, below eip, cs and eflags (domain.c,
   load_segments). Only fs and gs are tried here: without ds a 32-bit kernel can do nothing. */
#include "descriptors.h"

enum { FIRST = 0x9, SECOND = 0x11, WORDS = 7 * 4 };

static u64 *gdt;

static void set_up(void)
{
    gdt = table();
    set_descriptor(gdt + 1, 0x00cfb3000000ffffull);
    set_descriptor(gdt + 2, 0x00cfb3001234ffffull);
    use_gdt(gdt);
    asm volatile("mov %0, %%fs\nmov %1, %%gs" : : "r"(FIRST), "r"(SECOND));
}

static void forget(unsigned n)
{
    set_descriptor(gdt + n, 0);
}

#define YIELD() TRY("xor %%ebx, %%ebx\nmov $29, %%eax\nint $0x82", : : : "eax", "ebx", "memory")

VARIATION(frame, "one selector of two has lost its descriptor")
{
    u16 fs, gs;
    set_up();
    NO_TRAP("as long as all are good, nothing", YIELD());
    forget(1);
    check(YIELD(), "the callback", "nothing");
    check_equal(fault.vector, FROM_FAILSAFE, "is the failsafe callback");
    asm volatile("mov %%fs, %0\nmov %%gs, %1" : "=r"(fs), "=r"(gs));
    check_equal(fs, 0, "fs is 0");
    check_equal(gs, SECOND, "gs is as it was");
    check_equal(fault.selectors[0], FLAT_KERNEL_SS, "ds, in the frame");
    check_equal(fault.selectors[1], FLAT_KERNEL_SS, "es, in the frame");
    check_equal(fault.selectors[2], FIRST, "fs, in the frame");
    check_equal(fault.selectors[3], SECOND, "gs, in the frame");
    check_equal(fault.cs, FLAT_KERNEL_CS, "cs");
    check_equal(fault.entry_rsp, fault.frame.rsp - WORDS, "where the frame is");
    check_equal(fault.entry_mask, fault.saved_mask, "events are not masked by it");
    NO_TRAP("once", YIELD());
}

VARIATION(mask, "events are masked if it was registered so")
{
    set_up();
    MUST(set_callback(CALLBACKTYPE_failsafe, CALLBACKF_mask_events, (word)failsafe_callback));
    shared->vcpu[0].mask = 0;
    forget(2);
    check(YIELD(), "the callback", "nothing");
    check_equal(fault.entry_mask, 1, "masked");
    check_equal(fault.saved_mask, 0, "the mask saved");
}

VARIATION(base, "a descriptor's base counts for fs")
{
    static word here = 0x5678;
    word got;
    gdt = table();
    u64 base = (word)&here;
    u64 descriptor = 0x00cfb3000000ffffull | (base & 0xffffff) << 16 | (base >> 24) << 56;
    set_descriptor(gdt + 1, descriptor);
    use_gdt(gdt);
    asm volatile("mov %1, %%fs\nmov %%fs:0, %0" : "=r"(got) : "r"(FIRST));
    check_equal(got, 0x5678, "read by way of it");
    (void)TRY("ud2", :);
    asm volatile("mov %%fs:0, %0" : "=r"(got));
    check_equal(got, 0x5678, "after a trap, too");
    asm volatile("mov %0, %%fs" : : "r"(0));
}

CRASHING_VARIATION(none, "handler's code segment is the null one", "without a callback")
{
    struct callback_register callback = {CALLBACKTYPE_failsafe, 0, 0, 0};
    set_up();
    MUST(hypercall(CALLBACK_OP, 0, &callback));
    forget(1);
    (void)YIELD();
}

#define BLOCK() TRY("mov $1, %%ebx\nmov $29, %%eax\nint $0x82", : : : "eax", "ebx", "memory")

VARIATION(asleep, "a vCPU that slept meets it when it wakes")
{
    set_up();
    bind_virq(VIRQ_TIMER);
    forget(1);
    set_timer(now() + 1000000);
    check(BLOCK(), "the callback", "nothing");
    mask_events();
    check_equal(fault.selectors[2], FIRST, "fs, in the frame");
    check(events > 0, "and the event", "none");
}

VARIATION(no_gdt, "no table at all")
{
    u16 fs, gs;
    set_up();
    MUST(hypercall(SET_GDT, 0, 0));
    check(YIELD(), "the callback", "nothing");
    asm volatile("mov %%fs, %0\nmov %%gs, %1" : "=r"(fs), "=r"(gs));
    check_equal(fs, 0, "fs is 0");
    check_equal(gs, 0, "gs is 0");
    check_equal(fault.selectors[2], FIRST, "fs, in the frame");
    check_equal(fault.selectors[3], SECOND, "gs, in the frame");
}

VARIATION(flat, "Xen's own segments can always be loaded")
{
    set_up();
    asm volatile("mov %0, %%fs\nmov %1, %%gs" : : "r"(FLAT_KERNEL_SS), "r"(FLAT_USER_SS));
    MUST(hypercall(SET_GDT, 0, 0));
    NO_TRAP("no callback", YIELD());
}
