#include "store.h"

volatile struct store_page *store;
struct header got;
char answer[PAYLOAD_MAX + 1], event_path[PAYLOAD_MAX + 1], event_token[PAYLOAD_MAX + 1];
unsigned events_seen;
static u32 number;

void store_start(void)
{
    store = (volatile struct store_page *)table_at(start_info->store_mfn);
}

void ring_bell(void)
{
    MUST(event_channel_op(EVTCHN_send, (void *)&start_info->store_evtchn));
    hypercall(SCHED_OP, SCHED_yield);
}

static void wait_while(volatile u32 *a, volatile u32 *b, u32 difference)
{
    for (unsigned tries = 0; *a - *b == difference; tries++) {
        if (tries == 100000)
            broken("XenStore does not move: %u %u %u %u, error %u", store->req_cons, store->req_prod, store->rsp_cons,
                   store->rsp_prod, store->error);
        ring_bell();
    }
}

void put(const void *data, unsigned size)
{
    for (const u8 *at = data; size; size--) {
        wait_while(&store->req_prod, &store->req_cons, RING);
        store->req[store->req_prod % RING] = *at++;
        asm volatile("" : : : "memory");
        store->req_prod++;
    }
}

static void get(void *data, unsigned size)
{
    for (u8 *at = data; size; size--) {
        wait_while(&store->rsp_prod, &store->rsp_cons, 0);
        *at++ = store->rsp[store->rsp_cons % RING];
        asm volatile("" : : : "memory");
        store->rsp_cons++;
    }
}

void put_header(u32 type, u32 transaction, unsigned length)
{
    struct header header = {type, ++number, transaction, length};
    put(&header, sizeof header);
}

static unsigned length_of(const char *text)
{
    unsigned size = 0;
    while (text[size])
        size++;
    return size;
}

int get_message(void)
{
    static char payload[PAYLOAD_MAX + 1];
    struct header header;
    get(&header, sizeof header);
    if (header.length > PAYLOAD_MAX)
        broken("a payload of %u bytes", header.length);
    get(payload, header.length);
    payload[header.length] = 0;
    if (header.type == XS_WATCH_EVENT) {
        unsigned path = length_of(payload);
        events_seen++;
        memcpy(event_path, payload, path + 1);
        memcpy(event_token, payload + path + 1, header.length - path);
        if (header.number || header.transaction)
            broken("an event with the number %u and the transaction %u", header.number, header.transaction);
    } else {
        got = header;
        memcpy(answer, payload, header.length + 1);
    }
    return header.type;
}

void get_answer(void)
{
    while (get_message() == XS_WATCH_EVENT)
        ;
    if (got.number != number)
        broken("an answer to request %u instead of %u", got.number, number);
}

void ask(u32 type, u32 transaction, const void *payload, unsigned size)
{
    put_header(type, transaction, size);
    put(payload, size);
    get_answer();
}

int is(const char *text)
{
    return got.type != XS_ERROR && got.length == length_of(text) && !memcmp(answer, text, got.length);
}

int refused(const char *word)
{
    return got.type == XS_ERROR && got.length == length_of(word) + 1 && !strcmp(answer, word);
}
