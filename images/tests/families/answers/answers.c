/* What Xen says of itself: xen_version's questions, and hvm_op's clock (xen/common/kernel.c, arch/x86/hvm/hvm.c). */
#include "kit.h"

enum { VERSION = 0, EXTRAVERSION, COMPILE_INFO, CAPABILITIES, CHANGESET, PLATFORM, FEATURES, PAGE_SIZE, HANDLE,
       COMMANDLINE, BUILD_ID };
static u8 answer[2048];

static sword ask(word question)
{
    memset(answer, 0xaa, sizeof answer);
    return hypercall(XEN_VERSION, question, answer);
}

/* How many bytes were written. */
static int length(void)
{
    int i = sizeof answer;
    while (i && answer[i - 1] == 0xaa)
        i--;
    return i;
}

VARIATION(version, "each question, and how much of the buffer its answer takes")
{
    check_equal(hypercall(XEN_VERSION, VERSION, 0), 4 << 16 | 17, "Xen 4.17");
    check_equal(hypercall(XEN_VERSION, 1ull << 40 | VERSION, 0), 4 << 16 | 17, "of a question 32 bits count");
    check_equal(ask(EXTRAVERSION), 0, "its extra version");
    check(answer[0] == '.' && answer[1] >= '0' && answer[1] <= '9', "a point and a digit", "%x %x", answer[0], answer[1]);
    check_equal(length(), 16, "16 bytes");
    check_equal(ask(COMPILE_INFO), 0, "who made it");
    check_equal(length(), 144, "144 bytes");
    check_equal(ask(CAPABILITIES), 0, "what it runs");
    check_equal(strcmp((char *)answer, "xen-3.0-x86_64 xen-3.0-x86_32p "), 0, "64-bit and PAE guests");
    check_equal(length(), 1024, "1024 bytes");
    check_equal(ask(CHANGESET), 0, "its change set");
    check_equal(length(), 64, "64 bytes");
    check_equal(ask(PLATFORM), 0, "where its part begins");
    check_equal(*(word *)answer, HOLE, "at the M2P");
    check_equal(length(), sizeof(word), "a word");
    check_equal(hypercall(XEN_VERSION, PAGE_SIZE, 0), PAGE, "the size of a page");
    check_equal(ask(HANDLE), 0, "the domain's handle");
    check_equal(length(), 16, "16 bytes, too");
    check_equal(ask(COMMANDLINE), 0, "its command line");
    check_equal(strcmp((char *)answer, "<denied>"), 0, "which is denied");
    check_equal(length(), 9, "in nine bytes");
}

VARIATION(features, "the features, one of which comes with an assist")
{
    u32 info[2] = {0, 0};
    check_equal(hypercall(XEN_VERSION, FEATURES, info), 0, "the first submap");
    check_equal(info[1], 0x220e0, "what a domU has");
    MUST(hypercall(VM_ASSIST, 0, 3));
    check_equal(hypercall(XEN_VERSION, FEATURES, info), 0, "with extended cr3s");
    check_equal(info[1], 0x220f0, "page directories above 4 GiB");
    MUST(hypercall(VM_ASSIST, 1, 3));
    MUST(hypercall(XEN_VERSION, FEATURES, info));
    check_equal(info[1], 0x220e0, "without them again");
    info[0] = 1;
    check_equal(hypercall(XEN_VERSION, FEATURES, info), -EINVAL, "there is no second submap");
    check_equal(info[1], 0x220e0, "nothing is written of it");
}

VARIATION(hvm_op, "what a PV guest gets of hvm_op")
{
    enum { SET_PARAM = 0, GET_PARAM, FLUSH_TLBS = 5, PAGETABLE_DYING = 9, GET_TIME, XENTRACE, GET_MEM_TYPE = 15,
           SET_UPCALL_VECTOR = 23, REQUEST_VM_EVENT, ALTP2M };
    u64 time = 0, before = now();
    check_equal(hypercall(HVM_OP, GET_TIME, &time), 0, "the time");
    check(time >= before && time <= now(), "is the system's", "%llu", time);
    check_equal(hypercall(HVM_OP, GET_TIME, 0), -EFAULT, "the time to nowhere");
    struct { u16 domid, pad; u32 index; u64 value; } parameter = {DOMID_SELF, 0, 39, 0};
    check_equal(hypercall(HVM_OP, GET_PARAM, &parameter), -EINVAL, "a parameter that is none");
    parameter.index = 1;
    check_equal(hypercall(HVM_OP, GET_PARAM, &parameter), -EINVAL, "a parameter of a PV guest");
    parameter.domid = NO_DOMAIN;
    check_equal(hypercall(HVM_OP, SET_PARAM, &parameter), -ESRCH, "of no domain");
    parameter.domid = 0;
    check_equal(hypercall(HVM_OP, SET_PARAM, &parameter), -EINVAL, "of domain 0");
    check_equal(hypercall(HVM_OP, GET_MEM_TYPE, &parameter), -EPERM, "domain 0's memory");
    parameter.domid = DOMID_SELF;
    check_equal(hypercall(HVM_OP, GET_MEM_TYPE, &parameter), -EINVAL, "one's own memory");
    check_equal(hypercall(HVM_OP, PAGETABLE_DYING, &parameter), -EINVAL, "a page table about to go");
    check_equal(hypercall(HVM_OP, FLUSH_TLBS, 0), -EINVAL, "a flush");
    check_equal(hypercall(HVM_OP, SET_UPCALL_VECTOR, 0), -EINVAL, "an upcall vector, before its pointer is seen");
    check_equal(hypercall(HVM_OP, REQUEST_VM_EVENT, 0), 0, "an event for a monitor that is not there");
    check_equal(hypercall(HVM_OP, REQUEST_VM_EVENT, &parameter), -EINVAL, "one with an argument");
    check_equal(hypercall(HVM_OP, ALTP2M, &parameter), -EOPNOTSUPP, "altp2m");
    u16 trace[16] = {0xfff, 28};
    check_equal(hypercall(HVM_OP, XENTRACE, trace), 0, "a record for Xen's trace");
    trace[1] = 29;
    check_equal(hypercall(HVM_OP, XENTRACE, trace), -EINVAL, "one that is too long");
    trace[0] = 0x1000, trace[1] = 0;
    check_equal(hypercall(HVM_OP, XENTRACE, trace), -EINVAL, "one of another class");
#if BITS == 64
    check_equal(hypercall(HVM_OP, 1ull << 32 | GET_TIME, &time), -ENOSYS, "of a command all bits count");
#endif
}

VARIATION(machphys, "where the machine-to-physical table is, and the frames that it is made of")
{
    struct { word start, end, max_mfn; } place = {0};
    check_equal(memory_op(XENMEM_machphys_mapping, &place), 0, "the call");
    check_equal(place.start, (word)M2P, "it begins where it is known to");
    check_equal(place.max_mfn, (place.end - place.start) / sizeof(word) - 1, "its last entry is at its end");
    check_equal(M2P[mfn_of_pfn(5)], 5, "and can be read there");
    word frames[64] = {0};
    struct { u32 most; word *list; u32 count; } asked = {64, frames, 0};
    check_equal(memory_op(XENMEM_machphys_mfn_list, &asked), 0, "its frames");
    word bytes = max_mfn * sizeof(word);
    check_equal(asked.count, (bytes + (1 << 21) - 1) >> 21, "one for each 2 MiB");
    for (unsigned i = 0; i < asked.count; i++)
        if (frames[i] >= max_mfn || own_frame(frames[i]))
            check(0, "frames of Xen's", "frame %lx", frames[i]);
    asked.most = 0;
    check_equal(memory_op(XENMEM_machphys_mfn_list, &asked), 0, "none of them");
    check_equal(asked.count, 0, "are none");
    asked.most = 1, asked.list = (word *)XENS;
    check_equal(memory_op(XENMEM_machphys_mfn_list, &asked), -EFAULT, "a list in Xen's part");
#if BITS == 32
    check_equal(memory_op(XENMEM_machphys_compat_mfn_list, &asked), -EFAULT, "by its other name");
    asked.most = 64, asked.list = frames;
    check_equal(memory_op(XENMEM_machphys_compat_mfn_list, &asked), 0, "and what that gives");
#endif
}
