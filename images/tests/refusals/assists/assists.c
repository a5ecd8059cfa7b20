/* vm_assist: which assists there are (xen/common/kernel.c: do_vm_assist), and that a refused one changes none. */
#include "kit.h"

enum { ENABLE = 0, DISABLE = 1 };

static sword assist(word command, word type)
{
    return hypercall(VM_ASSIST, command, type);
}

VARIATION(types, "types and commands")
{
    watch(page());
    static const struct {
        word type;
        const char *names[3];
    } known[] = {
        {0, {"4gb_segments on", "4gb_segments off", "4gb_segments, an unknown command"}},
        {1, {"4gb_segments_notify on", "4gb_segments_notify off", "4gb_segments_notify, an unknown command"}},
        {2, {"writable_pagetables on", "writable_pagetables off", "writable_pagetables, an unknown command"}},
        {3, {"pae_extended_cr3 on", "pae_extended_cr3 off", "pae_extended_cr3, an unknown command"}},
        {4, {"architectural_iopl on", "architectural_iopl off", "architectural_iopl, an unknown command"}},
        {5, {"runstate_update_flag on", "runstate_update_flag off", "runstate_update_flag, an unknown command"}},
        {32, {"m2p_strict on", "m2p_strict off", "m2p_strict, an unknown command"}},
    };
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
        ALLOWED(known[i].names[0], assist(ENABLE, known[i].type));
        ALLOWED(known[i].names[1], assist(DISABLE, known[i].type));
        REFUSED(known[i].names[2], ENOSYS, assist(2, known[i].type));
    }
    REFUSED("type 6", EINVAL, assist(ENABLE, 6));
    REFUSED("type 31", EINVAL, assist(ENABLE, 31));
    REFUSED("type 33", EINVAL, assist(ENABLE, 33));
    REFUSED("type 63 off", EINVAL, assist(DISABLE, 63));
    REFUSED("type 64", EINVAL, assist(ENABLE, 64));
    REFUSED("the last type", EINVAL, assist(ENABLE, ~0u));
    REFUSED("an unknown type, an unknown command", EINVAL, assist(7, 6));
}

VARIATION(effects, "the assist for direct writes is on only while it is")
{
    word area = TEST_AREA(6);
    make_path(area);
    u64 *l1 = table_at((entry(area, 2) & ~ENTRY_FLAGS) / PAGE);
    watch(page());
#define STORE TRY("mov" W " $0, (%0)", : : "r"(l1 + 3) : "memory")
    REFUSED_BY_TRAP("at the start it is off", PF, 3, (word)(l1 + 3), STORE);
    MUST(assist(ENABLE, 2));
    check(!STORE, "on", "trap %u", fault.vector);
    check_equal(assist(2, 2), -ENOSYS, "an unknown command");
    check(!STORE, "it is still on", "trap %u", fault.vector);
    MUST(assist(DISABLE, 2));
    REFUSED_BY_TRAP("off", PF, 3, (word)(l1 + 3), STORE);
}
