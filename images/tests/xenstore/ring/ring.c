/* XenStore as a guest meets it: requests over the shared page, answers, watches, transactions
   (docs/misc/xenstore.txt and xenstore-ring.txt; tools/xenstore). */
#include "store.h"

static int ok(void)
{
    return got.type != XS_ERROR && got.length == 3 && !strcmp(answer, "OK");
}
#define CHECK_OK(name) check(ok(), name, "type %u, %u bytes: %s", got.type, got.length, answer)

/* All four indexes at one place, as a guest finds them that another has used before. */
static void begin_at(u32 index)
{
    store->req_cons = store->req_prod = store->rsp_cons = store->rsp_prod = index;
}

VARIATION(answers, "values, directories, permissions, and the words of refusals")
{
    store_start();
    ASK(XS_READ, 0, "domid\0");
    CHECK_IS("a relative path", "1");
    ASK(XS_READ, 0, "/local/domain/1/domid\0");
    CHECK_IS("an absolute path", "1");
    ASK(XS_WRITE, 0, "data/a\0x\0y");
    CHECK_OK("a value with a NUL");
    ASK(XS_READ, 0, "data/a\0");
    check(got.length == 3 && !memcmp(answer, "x\0y", 3), "it comes back", "%u bytes", got.length);
    ASK(XS_MKDIR, 0, "data/b/c\0");
    ASK(XS_DIRECTORY, 0, "data\0");
    check(got.length == 4 && !memcmp(answer, "a\0b\0", 4), "names in their order", "%u bytes", got.length);
    ASK(XS_GET_PERMS, 0, "data/b\0");
    check(got.length == 3 && !strcmp(answer, "n1"), "what a guest makes is its own", "%s", answer);
    ASK(XS_RM, 0, "data/b\0");
    CHECK_OK("a directory goes with what is in it");
    ASK(XS_READ, 0, "data/b/c\0");
    CHECK_REFUSED("what is not there", "ENOENT");
    ASK(XS_WRITE, 0, "name\0other");
    CHECK_REFUSED("what may only be read", "EACCES");
    ASK(XS_READ, 0, "/local/domain/0\0");
    CHECK_REFUSED("what is somebody else's", "EACCES");
    ASK(XS_READ, 0, "data//a\0");
    CHECK_REFUSED("what is no path", "EINVAL");
    ASK(XS_READ, 0, "data/a");
    CHECK_REFUSED("a path without its NUL", "EINVAL");
    ASK(XS_INTRODUCE, 0, "1\0" "2\0" "3\0");
    CHECK_REFUSED("what only domain 0 may ask", "EACCES");
    ASK(99, 0, "data\0");
    CHECK_REFUSED("a type that is none", "ENOSYS");
    ASK(XS_READ, 7, "data/a\0");
    CHECK_REFUSED("a transaction that is none", "ENOENT");
}

VARIATION(around, "requests and answers that begin at each place of the ring, and around the end of the indexes")
{
    unsigned wrong = 0;
    store_start();
    ASK(XS_WRITE, 0, "data/a\0twelve bytes");
    for (u32 i = 0; i < RING; i += 7) {
        begin_at(0xfffffe00 + i);
        ASK(XS_READ, 0, "data/a\0");
        wrong += !is("twelve bytes");
    }
    check(wrong == 0, "every answer", "%u are wrong", wrong);
}

VARIATION(pieces, "a request that comes byte by byte is answered when it is whole")
{
    static const struct header header = {XS_READ, 1, 0, 6};
    unsigned early = 0;
    store_start();
    begin_at(RING - 10);
    for (unsigned i = 0; i < sizeof header + 5; i++) {
        put(i < sizeof header ? (const char *)&header + i : &"domid"[i - sizeof header], 1);
        ring_bell();
        now(); /* time passes */
        early += store->rsp_prod != store->rsp_cons;
    }
    check(!early, "no answer before", "%u times", early);
    put("", 1);
    get_message();
    CHECK_IS("then it comes", "1");
}

VARIATION(large, "requests and answers that are longer than the ring")
{
    static char message[8 + 2000] = "data/a";
    store_start();
    for (unsigned i = 0; i < 2000; i++)
        message[7 + i] = i * 7;
    ask(XS_WRITE, 0, message, 7 + 2000);
    CHECK_OK("2000 bytes");
    ASK(XS_READ, 0, "data/a\0");
    check(got.length == 2000 && !memcmp(answer, message + 7, 2000), "come back", "%u bytes", got.length);
    put_header(XS_WRITE, 0, PAYLOAD_MAX);
    for (unsigned i = 0; i < PAYLOAD_MAX; i++)
        put(i < 7 ? &"data/b"[i] : "x", 1);
    get_answer();
    CHECK_REFUSED("a node must stay below 2048 bytes", "ENOSPC");
}

VARIATION(patience, "who takes no answers is not listened to, and loses none")
{
    unsigned seen = 0, size = 0;
    store_start();
    for (unsigned i = 0; i < 40; i++) { /* all of them fit into the ring, but few of their answers */
        put_header(XS_DIRECTORY, 0, 8);
        put("control", 8);
    }
    for (int i = 0; i < 10; i++)
        ring_bell();
    check(store->rsp_prod == RING, "answers fill the ring", "%u bytes", store->rsp_prod);
    check(store->req_cons != store->req_prod, "requests wait", "none");
    while (seen < 40 && get_message() == XS_DIRECTORY && (!size || got.length == size)) {
        size = got.length;
        seen += got.number == seen + 1;
    }
    check_equal(seen, 40, "answers in the end");
}

VARIATION(watches, "the first event comes at once, an event comes before the answer to what caused it")
{
    store_start();
    ASK(XS_WATCH, 0, "data\0token\0");
    CHECK_OK("a watch");
    check_equal(events_seen, 0, "its answer comes first");
    check(get_message() == XS_WATCH_EVENT && !strcmp(event_path, "data") && !strcmp(event_token, "token"),
          "and its first event", "%s %s", event_path, event_token);
    ASK(XS_WATCH, 0, "/local/domain/1/data\0token\0");
    CHECK_REFUSED("the same path and token", "EEXIST");
    ASK(XS_WRITE, 0, "data/a/b\0" "1");
    check(events_seen == 2 && !strcmp(event_path, "data/a/b"), "a change below", "%u events, %s", events_seen, event_path);
    ASK(XS_WATCH, 0, "/local/domain/1/data/a/b\0other\0");
    get_message();
    ASK(XS_RM, 0, "data/a\0");
    check(events_seen == 5 && !strcmp(event_path, "data/a") && !strcmp(event_token, "token"),
          "a removal tells the node's own watch and those above", "%u events, %s", events_seen, event_path);
    ASK(XS_UNWATCH, 0, "data\0token\0");
    CHECK_OK("no longer watched");
    ASK(XS_UNWATCH, 0, "data\0token\0");
    CHECK_REFUSED("a second time", "ENOENT");
    ASK(XS_WRITE, 0, "data/a\0" "2");
    check_equal(events_seen, 5, "nobody is told");
    ASK(XS_RESET_WATCHES, 0, "\0");
    ASK(XS_WRITE, 0, "data/a/b\0" "2");
    check_equal(events_seen, 5, "and nobody after a reset");
}

static u32 transaction(void)
{
    u32 value = 0;
    ASK(XS_TRANSACTION_START, 0, "\0");
    for (const char *at = answer; *at >= '0' && *at <= '9'; at++)
        value = 10 * value + *at - '0';
    return value;
}

VARIATION(conflict, "a transaction whose reading is no longer true is to be tried again")
{
    store_start();
    ASK(XS_WRITE, 0, "data/a\0old");
    ASK(XS_WATCH, 0, "data/b\0t\0");
    get_message();
    for (int attempt = 0; attempt < 2; attempt++) {
        u32 t = transaction();
        ASK(XS_READ, t, "data/a\0");
        ASK(XS_WRITE, t, "data/b\0new");
        ASK(XS_READ, t, "data/b\0");
        check(is("new"), attempt ? "again it sees its own" : "it sees its own", "%s", answer);
        ASK(XS_READ, 0, "data/b\0");
        check(refused("ENOENT"), attempt ? "still nobody else" : "nobody else does", "%s", answer);
        if (!attempt)
            ASK(XS_WRITE, 0, "data/a\0changed");
        ASK(XS_TRANSACTION_END, t, "T\0");
        check(attempt ? ok() : refused("EAGAIN"), attempt ? "the second is done" : "the first is not", "%s", answer);
        check_equal(events_seen, 1 + attempt, attempt ? "told at its end" : "nothing to tell");
    }
    ASK(XS_READ, 0, "data/b\0");
    CHECK_IS("and is seen", "new");
    ASK(XS_TRANSACTION_END, 1, "T\0");
    CHECK_REFUSED("a transaction that is over", "ENOENT");
}

static void until_error(u32 wanted, const char *name)
{
    for (unsigned tries = 0; !store->error && tries < 100000; tries++)
        ring_bell();
    check_equal(store->error, wanted, name);
}

static void begin_anew(const char *name)
{
    store->connection = RECONNECT;
    for (unsigned tries = 0; store->connection && tries < 100000; tries++)
        ring_bell();
    check(!store->connection && !store->error && !store->req_prod && !store->rsp_prod, name, "state %u, error %u",
          store->connection, store->error);
}

VARIATION(errors, "nonsense ends the conversation, and the guest may begin it anew")
{
    store_start();
    check_equal(store->features, 3, "the server's features");
    put_header(XS_WRITE, 0, PAYLOAD_MAX + 1);
    until_error(ERROR_PROTO, "a payload that is too long");
    begin_anew("anew after a long payload");
    ASK(XS_READ, 0, "domid\0");
    CHECK_IS("it answers again", "1");
    store->req_prod = store->req_cons + RING + 1;
    until_error(ERROR_RINGIDX, "more requests than the ring is long");
    begin_anew("anew after bad indexes");
    ASK(XS_WATCH, 0, "data\0t\0");
    get_message();
    begin_anew("anew without need");
    ASK(XS_WRITE, 0, "data/a\0" "1");
    check_equal(events_seen, 1, "what was watched before is forgotten");
}
