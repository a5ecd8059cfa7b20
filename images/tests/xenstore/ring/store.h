/* XenStore over the shared page (xen/include/public/io/xs_wire.h), as far as these tests need it. */
#pragma once
#include "kit.h"

enum { XS_DIRECTORY = 1, XS_READ, XS_GET_PERMS, XS_WATCH, XS_UNWATCH, XS_TRANSACTION_START, XS_TRANSACTION_END,
       XS_INTRODUCE, XS_WRITE = 11, XS_MKDIR, XS_RM, XS_SET_PERMS, XS_WATCH_EVENT, XS_ERROR, XS_RESET_WATCHES = 21 };
enum { RING = 1024, PAYLOAD_MAX = 4096, ERROR_RINGIDX = 2, ERROR_PROTO = 3, RECONNECT = 1 };

struct store_page {
    u8 req[RING], rsp[RING];
    u32 req_cons, req_prod, rsp_cons, rsp_prod, features, connection, error;
};
struct header {
    u32 type, number, transaction, length;
};
extern volatile struct store_page *store;
extern struct header got;        /* the last answer */
extern char answer[PAYLOAD_MAX + 1]; /* its payload, with a NUL behind it */
extern unsigned events_seen;     /* watch events so far */
extern char event_path[PAYLOAD_MAX + 1], event_token[PAYLOAD_MAX + 1]; /* the last one's */

void store_start(void);
void ring_bell(void);
void put(const void *data, unsigned size); /* as many bytes of a request as there is room for, until all are in */
void put_header(u32 type, u32 transaction, unsigned length);
int get_message(void); /* the next message, an answer or an event; its type */
void get_answer(void);
/* A request with a payload of `size` bytes, and its answer. */
void ask(u32 type, u32 transaction, const void *payload, unsigned size);
/* The same with a literal, whose NULs count: ASK(XS_READ, 0, "name\0") is "name" and one NUL. */
#define ASK(type, transaction, literal) ask(type, transaction, literal, sizeof(literal) - 1)
/* The last answer is this text (and as long), or this error. */
int is(const char *text);
int refused(const char *word);
#define CHECK_IS(name, text) check(is(text), name, "type %u, %u bytes: %s", got.type, got.length, answer)
#define CHECK_REFUSED(name, word) check(refused(word), name, "type %u, %u bytes: %s", got.type, got.length, answer)
