/* vcpu_op: what a vCPU may be told, and by whom (xen/common/domain.c: do_vcpu_op, map_vcpu_info). */
#include "kit.h"

enum {
    initialise, up, down, is_up, get_runstate_info, register_runstate_area, set_periodic_timer, stop_periodic_timer,
    set_singleshot_timer, stop_singleshot_timer, register_vcpu_info, send_nmi, get_physid, register_time_area,
};
#define SECONDS 1000000000ull

static sword vcpu_op(word command, word vcpu, const void *argument)
{
    return hypercall(VCPU_OP, command, vcpu, argument);
}

VARIATION(numbers, "which vCPUs and which commands there are")
{
    watch(page());
    static const char *const names[] = {
        "initialise", "up", "down", "is_up", "get_runstate_info", "register_runstate_memory_area", "set_periodic_timer",
        "stop_periodic_timer", "set_singleshot_timer", "stop_singleshot_timer", "register_vcpu_info", "send_nmi",
        "get_physid", "register_vcpu_time_memory_area",
    };
    for (unsigned command = 0; command < sizeof names / sizeof *names; command++)
        REFUSED(names[command], ENOENT, vcpu_op(command, 1, 0));
    REFUSED("an unknown command for a vCPU that is not there", ENOENT, vcpu_op(99, 1, 0));
    REFUSED("a vCPU past all", ENOENT, vcpu_op(is_up, 1u << 31, 0));
    REFUSED("the last number", ENOENT, vcpu_op(is_up, ~0u, 0));
    REFUSED("an unknown command", ENOSYS, vcpu_op(14 + 100, 0, 0));
    check_equal(vcpu_op(is_up, 0, 0), 1, "the vCPU is up");
    ALLOWED("a vCPU brought up that is", vcpu_op(up, 0, 0));
}

VARIATION(arguments, "arguments that are refused")
{
    u64 nowhere = TEST_AREA(9), zeros[700] = {0};
    watch(page());
    REFUSED("a running vCPU initialised", EEXIST, vcpu_op(initialise, 0, zeros));
    REFUSED("the same without an argument", EFAULT, vcpu_op(initialise, 0, 0));
    u64 period = 999999;
    REFUSED("a period under a millisecond", EINVAL, vcpu_op(set_periodic_timer, 0, &period));
    period = 0;
    REFUSED("no period", EINVAL, vcpu_op(set_periodic_timer, 0, &period));
    period = ~0ull;
    REFUSED("a period past all", EINVAL, vcpu_op(set_periodic_timer, 0, &period));
    REFUSED("an NMI with an argument", EINVAL, vcpu_op(send_nmi, 0, &period));
    u64 physid;
    REFUSED("the CPU's number", EINVAL, vcpu_op(get_physid, 0, &physid));
    static const char *const names[][3] = {
        [get_runstate_info] = {"runstate, to nowhere", "runstate, to Xen", "runstate, no argument"},
        [register_runstate_area] = {"runstate area, unmapped", "runstate area, Xen's", "runstate area, no argument"},
        [set_periodic_timer] = {"periodic timer, unmapped", "periodic timer, Xen's", "periodic timer, no argument"},
        [set_singleshot_timer] = {"timer, unmapped", "timer, Xen's", "timer, no argument"},
        [register_vcpu_info] = {"vcpu_info, unmapped", "vcpu_info, Xen's", "vcpu_info, no argument"},
        [register_time_area] = {"time area, unmapped", "time area, Xen's", "time area, no argument"},
    };
    for (unsigned command = 0; command < sizeof names / sizeof *names; command++) {
        if (!names[command][0])
            continue;
        REFUSED(names[command][0], EFAULT, vcpu_op(command, 0, (void *)(word)nowhere));
        REFUSED(names[command][1], EFAULT, vcpu_op(command, 0, (void *)XENS));
        REFUSED(names[command][2], EFAULT, vcpu_op(command, 0, 0));
    }
    u64 area = HOLE;
    REFUSED("a runstate area in Xen's", EFAULT, vcpu_op(register_runstate_area, 0, &area));
    REFUSED("a time area in Xen's", EFAULT, vcpu_op(register_time_area, 0, &area));
#if BITS == 64
    area = NON_CANONICAL;
    REFUSED("a runstate area at an address that is none", EFAULT, vcpu_op(register_runstate_area, 0, &area));
#else
    area = HOLE - 43;
    REFUSED("a runstate area that reaches into Xen's", EFAULT, vcpu_op(register_runstate_area, 0, &area));
#endif
}

VARIATION(info, "where a vcpu_info may be registered")
{
    struct { u64 mfn; u32 offset, reserved; } info = {0, 0, 0};
    void *target = page(), *typed = table();
    word nobody = freed_frame();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(typed), 0));
    watch(target);
    watch(typed);
    info.mfn = mfn_of(target);
    info.offset = PAGE - 63;
    REFUSED("too far behind in its page", ENXIO, vcpu_op(register_vcpu_info, 0, &info));
    info.offset = PAGE;
    REFUSED("behind its page", ENXIO, vcpu_op(register_vcpu_info, 0, &info));
    info.offset = ~0u;
    REFUSED("at the last offset", ENXIO, vcpu_op(register_vcpu_info, 0, &info));
    info.offset = sizeof(word) / 2;
    REFUSED("not aligned", ENXIO, vcpu_op(register_vcpu_info, 0, &info));
    info.offset = PAGE - 64;
    static const char *const names[] = {"no RAM", "nobody's frame", "a page table", "the root", "the last number"};
    word frames[] = {NO_RAM, nobody, mfn_of(typed), root_mfn(), ~0ul};
    for (unsigned i = 0; i < 5; i++) {
        info.mfn = frames[i];
        REFUSED(names[i], EINVAL, vcpu_op(register_vcpu_info, 0, &info));
    }
    info.mfn = mfn_of(target);
    ALLOWED("at the end of its page", vcpu_op(register_vcpu_info, 0, &info));
    REFUSED("a second time", EINVAL, vcpu_op(register_vcpu_info, 0, &info));
    info.offset = 0;
    REFUSED("elsewhere", EINVAL, vcpu_op(register_vcpu_info, 0, &info));
    MUST(unmap(target));
    MUST(map((word)target, address_of(target) | DATA_RO));
    REFUSED("its page as an L1 table", EINVAL, mmuext(PIN_L1_TABLE, mfn_of(target), 0));
}

VARIATION(timers, "a timer whose time is past fires at once")
{
    struct { u64 when; u32 flags; } timer = {1, 0};
    u32 port = bind_virq(VIRQ_TIMER);
    check_equal(vcpu_op(stop_periodic_timer, 0, 0), 0, "the periodic timer stopped");
    unmask_events();
    word before = port_events[port];
    check_equal(vcpu_op(set_singleshot_timer, 0, &timer), 0, "it is no error");
    check(port_events[port] == before + 1, "the event is there", "%lu events", port_events[port] - before);
}
