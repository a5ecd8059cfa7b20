/* xen_version: what may be asked by anybody, and where the answer may go (xen/common/kernel.c: do_xen_version). */
#include "kit.h"

enum {
    VERSION, EXTRAVERSION, COMPILE_INFO, CAPABILITIES, CHANGESET, PLATFORM_PARAMETERS, GET_FEATURES, PAGESIZE,
    GUEST_HANDLE, COMMANDLINE, BUILD_ID,
};

static sword ask(word question, const void *answer)
{
    return hypercall(XEN_VERSION, question, answer);
}

VARIATION(questions, "questions without an answer")
{
    u32 features[2] = {1, 0x5555};
    char room[64] = {0};
    watch(page());
    REFUSED("features past the first 32", EINVAL, ask(GET_FEATURES, features));
    check_equal(features[1], 0x5555, "nothing is written for them");
    features[0] = ~0u;
    REFUSED("the last features", EINVAL, ask(GET_FEATURES, features));
    REFUSED("the build's number", EPERM, ask(BUILD_ID, room));
    REFUSED("the build's number, without room for it", EPERM, ask(BUILD_ID, 0));
    REFUSED("the size of a page, with room for it", EINVAL, ask(PAGESIZE, room));
    check_equal(ask(PAGESIZE, 0), PAGE, "the size of a page");
    REFUSED("question 11", ENOSYS, ask(11, room));
    REFUSED("the last question", ENOSYS, ask(~0u, room));
    static char line[1024];
    ALLOWED("the command line", ask(COMMANDLINE, line));
    check(!strcmp(line, "<denied>"), "it is not told", "it is %s", line);
}

VARIATION(pointers, "where the answer goes")
{
    static const struct {
        word question;
        unsigned size;
        const char *names[5];
    } calls[] = {
        {EXTRAVERSION, 16,
         {"extraversion to nowhere", "extraversion to Xen", "extraversion to a page that is read-only",
          "extraversion across the end of what is mapped", "extraversion to no address"}},
        {COMPILE_INFO, 144,
         {"compile_info to nowhere", "compile_info to Xen", "compile_info to a page that is read-only",
          "compile_info across the end of what is mapped", "compile_info to no address"}},
        {CAPABILITIES, 1024,
         {"capabilities to nowhere", "capabilities to Xen", "capabilities to a page that is read-only",
          "capabilities across the end of what is mapped", "capabilities to no address"}},
        {CHANGESET, 64,
         {"changeset to nowhere", "changeset to Xen", "changeset to a page that is read-only",
          "changeset across the end of what is mapped", "changeset to no address"}},
        {PLATFORM_PARAMETERS, sizeof(word),
         {"platform_parameters to nowhere", "platform_parameters to Xen",
          "platform_parameters to a page that is read-only", "platform_parameters across the end of what is mapped",
          "platform_parameters to no address"}},
        {GET_FEATURES, 8,
         {"get_features to nowhere", "get_features to Xen", "get_features to a page that is read-only",
          "get_features across the end of what is mapped", "get_features to no address"}},
        {GUEST_HANDLE, 16,
         {"guest_handle to nowhere", "guest_handle to Xen", "guest_handle to a page that is read-only",
          "guest_handle across the end of what is mapped", "guest_handle to no address"}},
        {COMMANDLINE, 9, /* of "<denied>" */
         {"commandline to nowhere", "commandline to Xen", "commandline to a page that is read-only",
          "commandline across the end of what is mapped", "commandline to no address"}},
    };
    char *readable = table(), *last = page();
    void *behind = page();
    watch(readable);
    MUST(unmap(behind));
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        word question = calls[i].question;
        const char *const *name = calls[i].names;
        REFUSED(name[0], EFAULT, ask(question, 0));
        REFUSED(name[1], EFAULT, ask(question, (void *)XENS));
        REFUSED(name[2], EFAULT, ask(question, readable));
        REFUSED(name[3], EFAULT, ask(question, last + PAGE - calls[i].size / 2));
#if BITS == 64
        REFUSED(name[4], EFAULT, ask(question, (void *)NON_CANONICAL));
#endif
    }
    MUST(writable(behind));
}
