/*
 * The engine's side of the mailbox: it answers the shim, waits for its next ring, and says what left the guest. It holds
 * no policy.
 *
 * Waiting. Each side runs while the other waits. Each first looks again and again, as most stretches are short; then it
 * sleeps until a byte comes, or goes, through a pipe. Where there is more to run than there are processors nobody looks.
 */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "stub/engine/engine.h"
#include "stub/engine/qemu/mailbox.h"

enum { TF = 0x100, RF = 0x10000, SINGLE_STEP = 1 << 14 /* of DR6 */, DR7_RESERVED = 0x400 };
enum { FLAT_CS = 0xe033, FLAT_SS = 0xe02b, FLAT_CS32 = 0xe023 };
enum { POPF = 0x9d, IRET = 0xcf };
enum { DB = 1, UD = 6, NM = 7, GP = 13 };
enum { LOOKS = 100, LOOK_TIME = 50000 /* ns */, SHIM_LOOKS = 10000, LOAD_EXITS = 1000 };
enum { LONGEST_SLEEP = 64, HANGS = 60000 /* ms */ };
#define SECOND 1000000000ULL

static PyObject *engine_error;

typedef struct {
    PyObject_HEAD
    Py_buffer ram;
    volatile uint64_t *word;
    pid_t pid;
    int dead, busy, exits_to_load;
    int load; /* /proc/loadavg */
    int before; /* instructions that count before the guest's first */
    int bell, gate; /* pipes that the shim writes to */
    PyObject *reflex_owner;
    const Reflex *reflex;
    /* an in or out that was reported: where it ended, and what it was */
    uint64_t port_rip, port_length;
    int port_kind, port_size;
    int stepping, guest_steps; /* TF was set by us; the guest's own was set, too */
    struct { int execute, write, second; uint64_t address, size; } slots[4]; /* of the debug registers */
    uint64_t *stops; /* more stop points than debug registers: looked for instruction by instruction, in order */
    size_t n_stops;
    uint64_t stopped_at, stopped_when; /* the stop point that was reported last, and RETIRED then */
} Core;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static int out_of_patience(const Core *c)
{
    return c->word[PATIENCE] && now_ns() > c->word[PATIENCE];
}

/* Whether the shim has rung; nothing else is looked at. */
static inline int rung(const Core *c) { return c->word[MAIL_DONE] != c->word[MAIL_TURN]; }

/* Every now and then: whether more is to run than there are processors, and not for a moment only by one. */
static void look_at_load(Core *c)
{
    char text[64];
    unsigned running;
    c->exits_to_load = LOAD_EXITS;
    const ssize_t n = pread(c->load, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    c->busy = sscanf(text, "%*s %*s %*s %u", &running) == 1 && running > 1 + (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
}

/* Looks for a ring for a while; whether it came. */
static int look_for_ring(Core *c)
{
    if (--c->exits_to_load < 0)
        look_at_load(c);
    if (c->busy)
        return rung(c);
    const uint64_t end = now_ns() + LOOK_TIME;
    do {
        for (int i = 0; i < LOOKS; i++) {
            if (rung(c))
                return 1;
            __builtin_ia32_pause();
        }
    } while (now_ns() < end);
    return 0;
}

/* Sleeps until a byte comes through the bell, or for a while; 0 if the process is no more. The shim has no memory barrier
 * between its ring and its look at whether somebody sleeps, so that once in a long while no byte comes. */
static int sleep_for_ring(Core *c, int *ms, int *in_vain)
{
    char bytes[256];
    struct pollfd bell = {.fd = c->bell, .events = POLLIN};
    const int n = poll(&bell, 1, *ms);
    if (n > 0 && read(c->bell, bytes, sizeof bytes) <= 0)
        return rung(c);
    if (n == 0) {
        *in_vain += *ms;
        *ms = *ms < LONGEST_SLEEP ? 2 * *ms : *ms;
        if (waitpid(c->pid, NULL, WNOHANG) != 0)
            c->pid = 0; /* from now on another's */
        if (!c->pid || *in_vain > HANGS)
            return rung(c);
    }
    return 1;
}

/* Until the shim rings; 0 if it never will. A byte may belong to a ring that was seen before it came. */
static int wait_for_ring(Core *c)
{
    int ms = 1, in_vain = 0;
    if (look_for_ring(c))
        return 1;
    __atomic_store_n(&c->word[MAIL_ENGINE_SLEEPS], c->word[MAIL_TURN] + 1, __ATOMIC_SEQ_CST);
    while (!rung(c))
        if (!sleep_for_ring(c, &ms, &in_vain))
            return 0;
    return 1;
}

/* Answers the shim and waits for its next ring. */
static int command(Core *c, int what)
{
    char byte;
    if (c->dead)
        return 0;
    const uint64_t turn = c->word[MAIL_DONE];
    c->word[MAIL_COMMAND] = (uint64_t)what;
    c->word[MAIL_PATIENCE] = c->busy ? 0 : SHIM_LOOKS;
    __atomic_store_n(&c->word[MAIL_TURN], turn, __ATOMIC_SEQ_CST);
    if (c->word[MAIL_SHIM_SLEEPS] == turn)
        while (read(c->gate, &byte, 1) < 0 && errno == EINTR) /* it does not wait: where nothing is the gate is open */
            ;
    return wait_for_ring(c);
}

/* -- what the guest was at, from its code's bytes */

typedef struct {
    const uint8_t *code;
    int size, at, wide; /* wide: 64-bit code */
    int operand16, opcode, second;
} Code;

/* Past the prefixes to the opcode; 0 if there is none. */
static int decode(Core *c, Code *d)
{
    d->code = (const uint8_t *)&c->word[MAIL_CODE];
    d->size = (int)c->word[MAIL_CODE_SIZE];
    d->at = d->operand16 = 0;
    for (; d->at < d->size; d->at++) {
        const uint8_t byte = d->code[d->at];
        if (byte == 0x66)
            d->operand16 = 1;
        else if (byte != 0x67 && byte != 0xf2 && byte != 0xf3 && (byte & 0xe7) != 0x26 && (byte & 0xfe) != 0x64)
            break;
    }
    if (d->at < d->size && d->wide && (d->code[d->at] & 0xf0) == 0x40)
        d->at++;
    if (d->at + 1 > d->size)
        return 0;
    d->opcode = d->code[d->at];
    d->second = d->at + 1 < d->size ? d->code[d->at + 1] : -1;
    return 1;
}

/* #GP of an in or out, which the CPU checks and finds not allowed. */
static int port_exit(Core *c, const Code *d)
{
    volatile uint64_t *w = c->word;
    const int by_dx = d->opcode >= 0xec && d->opcode <= 0xef, direct = d->opcode >= 0xe4 && d->opcode <= 0xe7;
    if (!by_dx && !(direct && d->second >= 0))
        return -1;
    const int size = !(d->opcode & 1) ? 1 : d->operand16 ? 2 : 4, out = (d->opcode & 2) != 0;
    c->port_rip = w[RIP];
    c->port_length = (uint64_t)d->at + (direct ? 2 : 1);
    c->port_size = size;
    c->port_kind = out ? EXIT_OUT : EXIT_IN;
    w[EXIT_PORT] = direct ? (uint64_t)d->second : w[RDX] & 0xffff;
    w[EXIT_SIZE] = (uint64_t)size;
    w[EXIT_VALUE] = out ? w[RAX] & (size == 4 ? 0xffffffff : size == 2 ? 0xffff : 0xff) : 0;
    return c->port_kind;
}

/* The in or out that was reported is done, if RIP was left alone. */
static int complete_port(Core *c)
{
    volatile uint64_t *w = c->word;
    const int kind = c->port_kind;
    c->port_kind = -1;
    if (kind < 0 || w[RIP] != c->port_rip)
        return 0;
    if (kind == EXIT_IN) {
        const uint64_t mask = c->port_size == 4 ? ~0ULL : c->port_size == 2 ? 0xffff : 0xff;
        const uint64_t value = w[EXIT_VALUE] & (c->port_size == 4 ? 0xffffffff : mask);
        w[RAX] = (w[RAX] & ~mask) | value;
    }
    w[RIP] += c->port_length;
    w[RETIRED]++;
    return 1;
}

static int debug_exit(Core *c, int guests)
{
    c->word[EXIT_VECTOR] = DB;
    c->word[EXIT_SOFTWARE] = 0;
    c->word[EXIT_ERROR_CODE] = (uint64_t)guests;
    return EXIT_EXCEPTION;
}

static void note_watch(Core *c, int slot)
{
    volatile uint64_t *kept = &c->word[c->slots[slot].second ? WATCH2_ADDRESS : WATCH_ADDRESS]; /* address, size, write */
    kept[0] = c->slots[slot].address;
    kept[1] = c->slots[slot].size;
    kept[2] = (uint64_t)c->slots[slot].write;
}

/* Which watched accesses the instruction made, as the debug registers tell: QEMU tells of one of those that watch the same
 * bytes. */
static int note_watches(Core *c, uint64_t hits)
{
    int seen = 0;
    for (int i = 0; i < 4; i++) {
        if (!(hits >> i & 1) || c->slots[i].execute || !c->slots[i].size)
            continue;
        const uint64_t first = c->slots[i].address, behind = first + c->slots[i].size;
        for (int j = 0; j < 4; j++)
            if (!c->slots[j].execute && c->slots[j].address < behind &&
                c->slots[j].address + c->slots[j].size > first && (c->slots[i].write || !c->slots[j].write))
                note_watch(c, j);
        note_watch(c, i);
        seen = 1;
    }
    return seen;
}

static int is_stop(const Core *c, uint64_t rip)
{
    size_t low = 0, high = c->n_stops;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (c->stops[middle] < rip)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->n_stops && c->stops[low] == rip;
}

static int stop_exit(Core *c)
{
    c->stopped_at = c->word[RIP];
    c->stopped_when = c->word[RETIRED];
    return EXIT_STOP_POINT;
}

/* #DB: before an instruction with a stop point, or behind one that was stepped or touched watched memory. */
static int debug_trap(Core *c, int steps)
{
    const uint64_t dr6 = c->word[MAIL_DR6];
    for (int i = 0; i < 4; i++)
        if (dr6 >> i & 1 && c->slots[i].execute && c->slots[i].address == c->word[RIP] && !(dr6 & SINGLE_STEP))
            return stop_exit(c);
    const int watched = note_watches(c, dr6);
    const int guests = (c->guest_steps || !c->stepping) && dr6 & SINGLE_STEP; /* it may have set TF meanwhile */
    if (!watched && !guests && !steps)
        return EXIT_DONE; /* it was looked at for stop points only */
    return debug_exit(c, guests);
}

static int is_wide(uint64_t cs) { return cs == FLAT_CS; }

/* Whether QEMU finds an instruction to be privileged when it translates it: then it has counted it. */
static int is_privileged(const Code *d)
{
    static const uint8_t second[] = {0x06, 0x07, 0x08, 0x09, 0x20, 0x21, 0x22, 0x23, 0x30, 0x32, 0x35};
    if (d->opcode == 0xf4 || d->opcode == 0xfa || d->opcode == 0xfb)
        return 1;
    if (d->opcode != 0x0f)
        return 0;
    for (size_t i = 0; i < sizeof second; i++)
        if (d->second == second[i])
            return 1;
    const int modrm = d->at + 2 < d->size ? d->code[d->at + 2] : 0, digit = modrm >> 3 & 7;
    return (d->second == 0 && (digit == 2 || digit == 3)) ||
           (d->second == 1 && modrm != 0xf9 && modrm != 0xd0 && digit != 4 && (modrm < 0xc0 || digit >= 6));
}

static int general_protection(Core *c)
{
    volatile uint64_t *w = c->word;
    Code d = {.wide = is_wide(w[CS])};
    if (!decode(c, &d))
        return EXIT_EXCEPTION;
    if (is_privileged(&d) && !w[EXIT_ERROR_CODE])
        w[RETIRED]--;
    if (d.opcode == 0x0f && d.second == 0x34)
        return EXIT_SYSENTER;
    if ((w[EXIT_ERROR_CODE] & 7) == 2 && d.opcode == 0xcd && d.second >= 0) { /* int n through a gate that is closed */
        w[EXIT_VECTOR] = (uint64_t)d.second;
        w[EXIT_ERROR_CODE] = 0;
        w[EXIT_SOFTWARE] = 1;
        w[RIP] += (uint64_t)d.at + 2;
        return EXIT_EXCEPTION;
    }
    if (w[EXIT_ERROR_CODE])
        return EXIT_EXCEPTION;
    const int kind = port_exit(c, &d);
    if (kind >= 0)
        return kind;
    const int rdtscp = d.opcode == 0x0f && d.second == 0x01 && d.at + 2 < d.size && d.code[d.at + 2] == 0xf9;
    if ((d.opcode == 0x0f && d.second == 0x31) || rdtscp) {
        const uint64_t now = w[RETIRED] + w[TIME_SKEW];
        w[RAX] = now & 0xffffffff;
        w[RDX] = now >> 32;
        if (rdtscp)
            w[RCX] = w[TSC_AUX];
        w[RIP] += (uint64_t)d.at + (rdtscp ? 3 : 2);
        w[RETIRED]++;
        w[RDTSCS]++;
        return EXIT_DONE;
    }
    return EXIT_EXCEPTION;
}

/* What left the guest, as the contract has it; EXIT_DONE: nothing that anybody need know. */
static int classify(Core *c, int steps)
{
    volatile uint64_t *w = c->word;
    const uint64_t vector = w[MAIL_VECTOR];
    w[EXIT_SOFTWARE] = 0;
    w[RFLAGS] &= ~(uint64_t)RF;
    if (c->stepping && !c->guest_steps) {
        if (vector != DB || (w[MAIL_STEPPED] != POPF && w[MAIL_STEPPED] != IRET)) /* those load the guest's own */
            w[RFLAGS] &= ~(uint64_t)TF;
        if (vector == VECTOR_SYSCALL || vector == VECTOR_SYSCALL32)
            w[R11] &= ~(uint64_t)TF;
    }
    if (vector == VECTOR_SYSCALL || vector == VECTOR_SYSCALL32) {
        w[CS] = vector == VECTOR_SYSCALL ? FLAT_CS : FLAT_CS32;
        w[SS] = FLAT_SS;
        return EXIT_SYSCALL;
    }
    if (vector == VECTOR_TIMER)
        return EXIT_DEADLINE;
    if (vector >= VECTOR_BROKEN) {
        w[EXIT_VALUE] = vector;
        return EXIT_DEAD;
    }
    w[EXIT_VECTOR] = vector & 0xff;
    if (vector >= VECTOR_ENTRY)
        return EXIT_EXCEPTION;
    if (vector == DB)
        return debug_trap(c, steps);
    if (vector == 3 || vector == 4 || vector >= 32)
        w[EXIT_SOFTWARE] = 1;
    if (vector == GP)
        return general_protection(c);
    if (vector == UD || vector == NM) /* found when QEMU translates the instruction: then it has counted it */
        w[RETIRED]--;
    return vector == UD ? EXIT_INVALID : EXIT_EXCEPTION;
}

static void end_process(Core *c)
{
    if (c->pid) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
    }
    c->pid = 0;
    c->dead = 1;
}

static PyObject *died(Core *c)
{
    end_process(c);
    PyErr_SetString(engine_error, "died");
    return NULL;
}

/* run(): to the next exit. */
static PyObject *core_run(Core *c, PyObject *unused)
{
    (void)unused;
    volatile uint64_t *w = c->word;
    for (;;) {
        int kind;
        if (out_of_patience(c))
            return PyLong_FromLong(EXIT_WAITED);
        w[RETIRED] += (uint64_t)c->before;
        c->before = 0;
        const int completed = complete_port(c);
        const int steps = w[STEP] != 0, guest_steps = (w[RFLAGS] & TF) != 0;
        if (completed && (steps || guest_steps))
            kind = debug_exit(c, guest_steps);
        else if (w[RETIRED] >= w[DEADLINE])
            kind = EXIT_DEADLINE;
        else {
            const int told = w[RIP] == c->stopped_at && w[RETIRED] == c->stopped_when;
            if (!told && is_stop(c, w[RIP]))
                return PyLong_FromLong(stop_exit(c));
            c->stepping = steps || c->n_stops;
            c->guest_steps = guest_steps;
            w[MAIL_FLAGS] = (c->stepping ? TF : 0) | (told ? RF : 0);
            w[CODE_SWITCH] = 0;
            w[WATCH_SIZE] = w[WATCH2_SIZE] = 0;
            if (!command(c, COMMAND_RUN))
                return died(c);
            kind = classify(c, steps);
            if (kind == EXIT_DONE) {
                if (w[MAIL_VECTOR] == DB || (!steps && !guest_steps))
                    continue;
                kind = debug_exit(c, guest_steps);
            }
        }
        int done = c->reflex ? c->reflex->act(c->reflex->state, (uint64_t *)w, kind) : REFLEX_NOT_MINE;
        if (done == REFLEX_DONE && (w[STEP] || out_of_patience(c)))
            done = REFLEX_LOOK;
        if (done != REFLEX_DONE)
            return PyLong_FromLong(done == REFLEX_LOOK ? EXIT_DONE : kind);
    }
}

/* begin(pid, bell, gate, before): the shim runs in that process, and the pipes are the ones that it writes to; so many
 * instructions count before the guest's first. */
static PyObject *core_begin(Core *c, PyObject *args)
{
    int pid;
    if (!PyArg_ParseTuple(args, "iiii", &pid, &c->bell, &c->gate, &c->before))
        return NULL;
    c->pid = (pid_t)pid;
    c->dead = 0;
    if (c->load < 0)
        c->load = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    return wait_for_ring(c) ? Py_NewRef(Py_None) : died(c);
}

/* command(what): has the shim do it at once, while the guest stands still. */
static PyObject *core_command(Core *c, PyObject *what)
{
    const long number = PyLong_AsLong(what);
    if (PyErr_Occurred())
        return NULL;
    if (!command(c, (int)number))
        return died(c);
    Py_RETURN_NONE;
}

/* debug([(address, size, kind, second), …]): at most four; kind as in DR7: 0 instruction, 1 write, 3 read or write. */
static PyObject *core_debug(Core *c, PyObject *list)
{
    static const uint64_t lengths[9] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    uint64_t control = DR7_RESERVED;
    const Py_ssize_t n = PySequence_Size(list);
    if (n > 4)
        return PyErr_SetString(PyExc_ValueError, "more than four"), NULL;
    memset(c->slots, 0, sizeof c->slots);
    for (Py_ssize_t i = 0; i < n; i++) {
        unsigned long long address;
        int size, kind, second;
        PyObject *row = PySequence_GetItem(list, i);
        const int good = row && PyArg_ParseTuple(row, "Kiip", &address, &size, &kind, &second);
        Py_XDECREF(row);
        if (!good)
            return NULL;
        c->slots[i].address = c->word[MAIL_DR + i] = address;
        c->slots[i].size = (uint64_t)size;
        c->slots[i].execute = kind == 0;
        c->slots[i].write = kind == 1;
        c->slots[i].second = second;
        control |= 2ULL << 2 * i | ((uint64_t)kind | lengths[size & 15 & 8 ? 8 : size & 7] << 2) << (16 + 4 * i);
    }
    c->word[MAIL_DR7] = control;
    if (!command(c, COMMAND_DEBUG))
        return died(c);
    Py_RETURN_NONE;
}

/* scan(addresses in order): stop points beyond the debug registers. */
static PyObject *core_scan(Core *c, PyObject *list)
{
    const Py_ssize_t n = PySequence_Size(list);
    if (n < 0)
        return NULL;
    uint64_t *stops = calloc((size_t)n + 1, sizeof *stops);
    if (!stops)
        return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *address = PySequence_GetItem(list, i);
        stops[i] = address ? PyLong_AsUnsignedLongLong(address) : 0;
        Py_XDECREF(address);
    }
    if (PyErr_Occurred()) {
        free(stops);
        return NULL;
    }
    free(c->stops);
    c->stops = stops;
    c->n_stops = (size_t)n;
    Py_RETURN_NONE;
}

static PyObject *core_use_reflex(Core *c, PyObject *capsule)
{
    const Reflex *reflex = NULL;
    if (capsule != Py_None && !(reflex = PyCapsule_GetPointer(capsule, REFLEX_NAME)))
        return NULL;
    PyObject *old = c->reflex_owner;
    c->reflex_owner = Py_NewRef(capsule);
    c->reflex = reflex;
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

static PyObject *core_close(Core *c, PyObject *unused)
{
    (void)unused;
    end_process(c);
    if (c->load >= 0)
        close(c->load);
    c->load = -1;
    c->reflex = NULL;
    Py_CLEAR(c->reflex_owner);
    Py_RETURN_NONE;
}

/* Core(ram, at): the mailbox is at byte `at` of the shared memory. */
static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *ram;
    Py_ssize_t at;
    (void)keywords;
    if (!PyArg_ParseTuple(args, "On", &ram, &at))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Core *c = (Core *)allocate(type, 0);
    if (!c)
        return NULL;
    c->port_kind = c->load = -1;
    c->stopped_when = ~0ULL;
    c->dead = 1;
    if (PyObject_GetBuffer(ram, &c->ram, PyBUF_WRITABLE) < 0 || at < 0 || at + 4096 > c->ram.len) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the mailbox is not in the memory");
        Py_DECREF((PyObject *)c);
        return NULL;
    }
    c->word = (volatile uint64_t *)((char *)c->ram.buf + at);
    return (PyObject *)c;
}

static void core_dealloc(Core *c)
{
    PyTypeObject *type = Py_TYPE((PyObject *)c);
    Py_XDECREF(core_close(c, NULL));
    free(c->stops);
    if (c->ram.obj)
        PyBuffer_Release(&c->ram);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(c);
    Py_DECREF(type);
}

static int core_getbuffer(Core *c, Py_buffer *view, int flags)
{
    static Py_ssize_t shape[1] = {N_WORDS}, strides[1] = {8};
    (void)flags;
    view->buf = (void *)c->word;
    view->obj = Py_NewRef((PyObject *)c);
    view->len = N_WORDS * 8;
    view->readonly = 0;
    view->itemsize = 8;
    view->format = "Q";
    view->ndim = 1;
    view->shape = shape;
    view->strides = strides;
    view->suboffsets = NULL;
    view->internal = NULL;
    return 0;
}

/* A process that is to die with its parent dies with the thread that started it. So all are started by one thread, which
 * lives as long as this process does. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum { IDLE, ASKED, ANSWERED } state;
    pid_t owner, result;
    const char *program;
    char **argv;
    int errors, kept[8], n_kept;
} spawner = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static pid_t start_process(void)
{
    const pid_t parent = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* an interrupt at the terminal is ours */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    const int nothing = open("/dev/null", O_RDWR);
    dup2(nothing, 0);
    dup2(nothing, 1);
    dup2(spawner.errors, 2);
    for (int i = 0; i < spawner.n_kept; i++)
        fcntl(spawner.kept[i], F_SETFD, 0);
    execv(spawner.program, spawner.argv);
    _exit(127);
}

static void *spawn_for_ever(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&spawner.lock);
    for (;;) {
        while (spawner.state != ASKED)
            pthread_cond_wait(&spawner.changed, &spawner.lock);
        spawner.result = start_process();
        spawner.state = ANSWERED;
        pthread_cond_broadcast(&spawner.changed);
    }
    return NULL;
}

/* Whether there is such a thread; a fork of this process has none of its own yet. No signal is that thread's. */
static int have_spawner(void)
{
    pthread_t thread;
    sigset_t all, before;
    if (spawner.owner == getpid())
        return 1;
    pthread_mutex_init(&spawner.lock, NULL);
    pthread_cond_init(&spawner.changed, NULL);
    spawner.state = IDLE;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&thread, NULL, spawn_for_ever, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return errno = error, 0;
    pthread_detach(thread);
    spawner.owner = getpid();
    return 1;
}

/* spawn(program, arguments, errors, files): starts a program that dies with this one, and has the `files` open; its
 * stderr goes to the file `errors`. */
static PyObject *spawn(PyObject *self, PyObject *args)
{
    const char *program;
    PyObject *list, *files;
    int errors;
    char *argv[64];
    (void)self;
    if (!PyArg_ParseTuple(args, "sO!iO!", &program, &PyTuple_Type, &list, &errors, &PyTuple_Type, &files))
        return NULL;
    const Py_ssize_t n = PyTuple_Size(list), n_kept = PyTuple_Size(files);
    if (n > 63 || n_kept > 8)
        return PyErr_SetString(PyExc_ValueError, "too many arguments"), NULL;
    for (Py_ssize_t i = 0; i < n; i++)
        if (!(argv[i] = PyBytes_AsString(PyTuple_GetItem(list, i))))
            return NULL;
    argv[n] = NULL;
    if (!have_spawner())
        return PyErr_SetFromErrno(PyExc_OSError);
    pthread_mutex_lock(&spawner.lock);
    spawner.program = program;
    spawner.argv = argv;
    spawner.errors = errors;
    spawner.n_kept = (int)n_kept;
    for (Py_ssize_t i = 0; i < n_kept; i++)
        spawner.kept[i] = (int)PyLong_AsLong(PyTuple_GetItem(files, i));
    spawner.state = ASKED;
    pthread_cond_broadcast(&spawner.changed);
    while (spawner.state != ANSWERED)
        pthread_cond_wait(&spawner.changed, &spawner.lock);
    const pid_t pid = spawner.result;
    spawner.state = IDLE;
    pthread_mutex_unlock(&spawner.lock);
    if (pid < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(pid);
}

static PyMethodDef core_methods[] = {
    {"begin", (PyCFunction)core_begin, METH_VARARGS, "begin(pid, bell, gate): wait for the shim"},
    {"run", (PyCFunction)core_run, METH_NOARGS, "run() -> exit kind"},
    {"command", (PyCFunction)core_command, METH_O, "command(what)"},
    {"debug", (PyCFunction)core_debug, METH_O, "debug([(address, size, kind, second)])"},
    {"scan", (PyCFunction)core_scan, METH_O, "scan(addresses in order)"},
    {"use_reflex", (PyCFunction)core_use_reflex, METH_O, "use_reflex(capsule)"},
    {"close", (PyCFunction)core_close, METH_NOARGS, "close(): end the process"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_new, core_new},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_methods, core_methods},
    {Py_bf_getbuffer, core_getbuffer},
    {0, NULL},
};

static PyType_Spec core_spec = {"stub.engine.qemu._core.Core", sizeof(Core), 0, Py_TPFLAGS_DEFAULT, core_slots};

static PyMethodDef functions[] = {
    {"spawn", spawn, METH_VARARGS, "spawn(program, arguments, errors, files) -> process id"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_core", "The engine's side of the mailbox.", -1, functions, NULL, NULL, NULL, NULL,
};

#define NUMBERS(F) \
    F(N_WORDS) F(PAGE_EXTENDED) F(PAGE_ROOT) F(PAGE_APIC) F(PAGE_TOUCH) F(PAGE_CODE) F(PAGES) F(MAIL_DR) F(MAIL_DR7) \
    F(MAIL_DR6) F(MAIL_LDT) F(MAIL_GDT) F(PORT_BELL) F(PORT_GATE) F(COMMAND_SAVE) F(COMMAND_RESTORE) F(COMMAND_LDT) F(COMMAND_TOUCH) \
    F(COMMAND_DEBUG)

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *m = PyModule_Create(&module);
    PyObject *type = PyType_FromSpec(&core_spec);
    engine_error = PyErr_NewException("stub.engine.qemu._core.Died", NULL, NULL);
    if (!m || !type || !engine_error || PyModule_AddObjectRef(m, "Core", type) < 0 ||
        PyModule_AddObjectRef(m, "Died", engine_error) < 0)
        return NULL;
#define ADD(name) \
    if (PyModule_AddIntConstant(m, #name, name) < 0) \
        return NULL;
    NUMBERS(ADD)
    return m;
}
