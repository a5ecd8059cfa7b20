/* The console: formatting, and the ring that Xen's console daemon reads (xen/include/public/io/console.h). */
#include "kit.h"
#include "parts.h"
#include <stdarg.h>

struct ring {
    char in[1024], out[2048];
    u32 in_consumer, in_producer, out_consumer, out_producer;
};
static struct ring *ring;

void console_start(void)
{
    ring = (struct ring *)table_at(start_info->console_mfn);
}

static void notify(void)
{
    event_channel_op(EVTCHN_send, (void *)&start_info->console_evtchn);
}

static void send(const char *text, unsigned size)
{
    while (size--) {
        while (ring->out_producer - *(volatile u32 *)&ring->out_consumer >= sizeof ring->out) {
            notify();
            hypercall(SCHED_OP, SCHED_yield);
        }
        ring->out[ring->out_producer % sizeof ring->out] = *text++;
        asm volatile("" : : : "memory");
        ring->out_producer++;
    }
}

struct line {
    char text[512];
    unsigned size;
};

static void put(struct line *line, char byte)
{
    if (line->size < sizeof line->text)
        line->text[line->size++] = byte;
}

static void put_number(struct line *line, u64 value, unsigned base, unsigned width)
{
    char digits[24];
    unsigned count = 0;
    do {
        u32 digit;
        value = divided(value, base, &digit);
        digits[count++] = "0123456789abcdef"[digit];
    } while (value);
    while (count < width && count < sizeof digits)
        digits[count++] = '0';
    while (count)
        put(line, digits[--count]);
}

static void put_text(struct line *line, const char *text)
{
    while (*text)
        put(line, *text++);
}

static void put_value(struct line *line, char kind, unsigned longs, unsigned width, va_list *values)
{
    u64 value = longs > 1 ? va_arg(*values, u64) : longs ? va_arg(*values, word) : va_arg(*values, unsigned);
    if (kind == 'd') {
        long long number = longs > 1 ? (long long)value : longs ? (sword)value : (int)value;
        if (number < 0)
            put(line, '-');
        put_number(line, number < 0 ? -(u64)number : (u64)number, 10, width);
    } else {
        put_number(line, value, kind == 'x' ? 16 : 10, width);
    }
}

static void put_format(struct line *line, const char *format, va_list *values)
{
    for (; *format; format++) {
        if (*format != '%') {
            if (*format == '\n')
                put(line, '\r');
            put(line, *format);
            continue;
        }
        unsigned longs = 0, width = 0;
        for (format++; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + *format - '0';
        for (; *format == 'l'; format++)
            longs++;
        switch (*format) {
        case 's':
            put_text(line, va_arg(*values, const char *));
            break;
        case 'c':
            put(line, va_arg(*values, int));
            break;
        case 'p':
            put_text(line, "0x");
            put_number(line, (word)va_arg(*values, void *), 16, 0);
            break;
        case '%':
            put(line, '%');
            break;
        default:
            put_value(line, *format, longs, width, values);
        }
    }
}

void say_values(const char *format, va_list values)
{
    struct line line = {.size = 0};
    va_list own;
    va_copy(own, values);
    put_format(&line, format, &own);
    va_end(own);
    send(line.text, line.size);
}

void say(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    say_values(format, values);
    va_end(values);
    if (format[0] && ring)
        notify();
}
