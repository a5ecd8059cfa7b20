/* What is the toolstack's or the hardware domain's, and what is not there at all. Who calls with another version of
   the interface is told so first (do_sysctl, do_domctl, do_platform_op). */
#include "kit.h"

#define SYSCTL_VERSION 0x15 /* of Xen 4.17 */
#define DOMCTL_VERSION 0x15
#define PLATFORM_VERSION 0x03000001

struct request {
    u32 command, version;
    u16 domain, pad[3];
    u64 rest[32];
};

static sword ask(word call, u32 command, u32 version)
{
    struct request request = {command, version, DOMID_SELF, {0}, {0}};
    return hypercall(call, &request);
}

VARIATION(toolstack, "sysctl, domctl, platform_op")
{
    watch(page());
    REFUSED("sysctl", EPERM, ask(SYSCTL, 3, SYSCTL_VERSION));
    REFUSED("an unknown sysctl", EPERM, ask(SYSCTL, 999, SYSCTL_VERSION));
    REFUSED("sysctl of another version", EACCES, ask(SYSCTL, 3, SYSCTL_VERSION - 1));
    REFUSED("sysctl without an argument", EFAULT, hypercall(SYSCTL, 0));
    REFUSED("platform_op", EPERM, ask(PLATFORM_OP, 17, PLATFORM_VERSION));
    REFUSED("platform_op of another version", EACCES, ask(PLATFORM_OP, 17, PLATFORM_VERSION + 1));
    REFUSED("platform_op without an argument", EFAULT, hypercall(PLATFORM_OP, 0));
    REFUSED("domctl that creates a domain", EPERM, ask(DOMCTL, 1, DOMCTL_VERSION));
    REFUSED("domctl of DOMID_SELF, which is no number", ESRCH, ask(DOMCTL, 3, DOMCTL_VERSION));
    REFUSED("domctl of another version", EACCES, ask(DOMCTL, 3, DOMCTL_VERSION + 1));
    REFUSED("domctl without an argument", EFAULT, hypercall(DOMCTL, 0));
    struct request other = {3, DOMCTL_VERSION, 0, {0}, {0}};
    REFUSED("domctl of another domain", EPERM, hypercall(DOMCTL, &other));
}

VARIATION(others, "families that such a domain has no part in")
{
    u64 zeros[16] = {0};
    watch(page());
    REFUSED("xsm_op", ENOSYS, hypercall(XSM_OP, zeros));
    REFUSED("kexec_op", EPERM, hypercall(KEXEC_OP, 0, zeros));
    REFUSED("tmem_op", ENOSYS, hypercall(TMEM_OP, zeros));
    REFUSED("argo_op", ENOSYS, hypercall(ARGO_OP, 1, zeros));
    REFUSED("xenpmu_op", EOPNOTSUPP, hypercall(XENPMU_OP, 0, zeros));
    REFUSED("xenpmu_op without an argument", EOPNOTSUPP, hypercall(XENPMU_OP, 4, 0));
    REFUSED("hypfs_op", EPERM, hypercall(HYPFS_OP, 0, zeros));
    REFUSED("mca", EPERM, hypercall(MCA, zeros));
    u64 parameter[2] = {DOMID_SELF | 1ull << 32, 0};
    REFUSED("hvm_op get_param", EINVAL, hypercall(HVM_OP, 1, parameter));
    REFUSED("hvm_op set_param", EINVAL, hypercall(HVM_OP, 0, parameter));
    REFUSED("hvm_op without an argument", EFAULT, hypercall(HVM_OP, 1, 0));
    REFUSED("an unknown hvm_op", ENOSYS, hypercall(HVM_OP, 99, zeros));
}

VARIATION(numbers, "numbers that are no call's")
{
    static const struct {
        word number;
        const char *name;
    } numbers[] = {
        {11, "number 11"}, {43, "number 43"}, {47, "number 47"}, {49, "number 49"}, {55, "number 55"},
        {56, "number 56"}, {64, "number 64"}, {4095, "number 4095"}, {1ul << 31, "number 2 to the 31st"},
#if BITS == 64
        {1ul << 32 | XEN_VERSION, "xen_version with bit 32"}, {1ul << 63, "number 2 to the 63rd"},
#endif
        {~0ul, "the last number"},
    };
    watch(page());
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        REFUSED(numbers[i].name, ENOSYS, hypercall(numbers[i].number, 0));
}
