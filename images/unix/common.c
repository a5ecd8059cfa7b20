/* Compiled twice, into the start-up code and into the kernel, as neither may call the other: the console goes on where
 * the other left it, and properties are looked up in what was handed over. */
#include "unix.h"
#include <stdarg.h>

static struct handover *boot;

static void put(char byte)
{
    struct console_ring *ring = boot->ring;
    while (ring->out_producer - *(volatile u32 *)&ring->out_consumer >= sizeof ring->out)
        hypercall(HC_sched_op, SCHEDOP_yield, 0, 0, 0);
    ring->out[ring->out_producer % sizeof ring->out] = byte;
    asm volatile("" : : : "memory");
    ring->out_producer++;
}

static void put_number(word value, unsigned base)
{
    char digits[24];
    unsigned n = 0;
    do
        digits[n++] = "0123456789abcdef"[value % base];
    while (value /= base);
    while (n)
        put(digits[--n]);
}

/* %s, %x and %d of words; a line at a time. */
static void print(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    for (; *format; format++) {
        if (*format == '\n')
            put('\r');
        if (*format != '%') {
            put(*format);
            continue;
        }
        switch (*++format) {
        case 's':
            for (const char *text = va_arg(values, const char *); *text; text++)
                put(*text);
            break;
        case 'x':
            put_number(va_arg(values, word), 16);
            break;
        default:
            put_number(va_arg(values, word), 10);
        }
    }
    va_end(values);
    u32 port = boot->start_info->console_evtchn;
    hypercall(HC_event_channel_op, EVTCHNOP_send, (word)&port, 0, 0);
    hypercall(HC_sched_op, SCHEDOP_yield, 0, 0, 0);
}

static void end(u32 reason) __attribute__((noreturn));
static void end(u32 reason)
{
    for (;;)
        hypercall(HC_sched_op, SCHEDOP_shutdown, (word)&reason, 0, 0);
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static const char *property(const char *name)
{
    for (unsigned i = 0; i < boot->n_properties; i++)
        if (same(boot->properties[i].name, name))
            return boot->properties[i].value;
    return "";
}
