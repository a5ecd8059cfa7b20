/* From Xen's first instruction to the result line: the start, checks, hypercalls. */
#include "kit.h"
#include "parts.h"

const struct start_info *start_info;
struct shared_info *shared;
word max_mfn;
u32 done;

static u8 shared_page[PAGE] __attribute__((aligned(PAGE)));
static unsigned checks, failures;

extern const struct variation variations[], variations_end[];

/* -- what the compiler takes for granted */

void *memset(void *to, int byte, unsigned long size)
{
    void *at = to;
    asm volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, unsigned long size)
{
    void *at = to;
    asm volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
    return to;
}

int memcmp(const void *a, const void *b, unsigned long size)
{
    const u8 *x = a, *y = b;
    for (; size; size--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

int strcmp(const char *a, const char *b)
{
    for (; *a && *a == *b; a++, b++)
        ;
    return (u8)*a - (u8)*b;
}

/* -- checks and the result */

void power_off(void)
{
    static const u32 reason = SHUTDOWN_poweroff;
    for (;;)
        hypercall(SCHED_OP, SCHED_shutdown, &reason);
}

void check(int right, const char *name, const char *format, ...)
{
    va_list values;
    checks++;
    if (right) {
        say("ok %s\n", name);
        return;
    }
    failures++;
    va_start(values, format);
    say("not ok %s: ", name);
    say_values(format, values);
    say("\n");
    va_end(values);
}

int check_equal(sword got, sword wanted, const char *name)
{
    check(got == wanted, name, "%ld (0x%lx) instead of %ld (0x%lx)", got, got, wanted, wanted);
    return got == wanted;
}

int check_entry(u64 got, u64 wanted, const char *name)
{
    check(got == wanted, name, "0x%llx instead of 0x%llx", got, wanted);
    return got == wanted;
}

static void ends(const char *result, const char *format, va_list values) __attribute__((noreturn));

static void ends(const char *result, const char *format, va_list values)
{
    say("Test result: %s: ", result);
    say_values(format, values);
    say("\n");
    power_off();
}

void skip(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    ends("SKIP", format, values);
}

void broken(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    ends("ERROR", format, values);
}

void must(sword result, const char *call, const char *file, int line)
{
    if (result)
        broken("%s gave %ld (%s, line %d)", call, result, file, line);
}

static void finish(void)
{
    if (failures) {
        say("Test result: FAILURE: %u of %u checks\n", failures, checks);
    } else if (!checks) {
        broken("nothing was checked");
    } else {
        say("Test result: SUCCESS\n");
    }
    power_off();
}

/* -- hypercalls */

sword mmu_update(const struct mmu_update *requests, word count, word domain)
{
    done = UNTOUCHED;
    return hypercall(MMU_UPDATE, requests, count, &done, domain);
}

sword update(u64 address, u64 value)
{
    struct mmu_update request = {address, value};
    return mmu_update(&request, 1, DOMID_SELF);
}

sword mmuext_op(const struct mmuext_op *operations, word count, word domain)
{
    done = UNTOUCHED;
    return hypercall(MMUEXT_OP, operations, count, &done, domain);
}

sword mmuext(u32 command, word arg1, word arg2)
{
    struct mmuext_op operation = {command, arg1, arg2};
    return mmuext_op(&operation, 1, DOMID_SELF);
}

sword update_va_mapping(word address, u64 value, word flags)
{
    return hypercall(UPDATE_VA_MAPPING, address, VALUE(value), flags);
}

sword map(word address, u64 value)
{
    return update_va_mapping(address, value, UVMF_INVLPG);
}

sword memory_op(word command, const void *argument)
{
    return hypercall(MEMORY_OP, command, argument);
}

sword event_channel_op(word command, void *argument)
{
    return hypercall(EVENT_CHANNEL_OP, command, argument);
}

/* -- the start */

const char *word_of_command_line(int n)
{
    static char copy[256];
    const char *at = start_info->cmd_line;
    unsigned size = 0;
    while (*at == ' ')
        at++;
    for (; n; n--) {
        while (*at && *at != ' ')
            at++;
        while (*at == ' ')
            at++;
    }
    while (at[size] && at[size] != ' ' && size + 1 < sizeof copy) {
        copy[size] = at[size];
        size++;
    }
    copy[size] = 0;
    return copy;
}

void kit_start(const struct start_info *info);

void kit_start(const struct start_info *info)
{
    start_info = info;
    shared = (struct shared_info *)shared_page;
    map((word)shared_page, info->shared_info | DATA);
    max_mfn = memory_op(XENMEM_maximum_ram_page, 0);
    console_start();
    traps_start();
    pages_start();
    for (const struct variation *at = variations; at < variations_end; at++)
        if (!strcmp(at->name, word_of_command_line(0))) {
            at->run();
            finish();
        }
    broken("no variation is called \"%s\"", start_info->cmd_line);
}
