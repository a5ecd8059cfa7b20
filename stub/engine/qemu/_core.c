/*
 * The engine's side of the mailbox: it answers the shim, waits for its next ring (mail.c), and says what left the guest
 * (exits.c). It holds no policy.
 */
#include "core.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { AHEAD = 2 };    /* instructions; a load of SS holds the timer back by one */
enum { STEPS = 1000 }; /* of the shim's own, to a jump, before somebody looks */
enum { DR7_RESERVED = 0x400, PAGE_ENTRY = 0x63 /* present, writable, accessed, dirty */ };

static PyObject *engine_error;

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
    if (c->trapped)
        PyErr_Format(engine_error, "its shim trapped, vector %d", (int)(c->word[MAIL_VECTOR] & 0xff));
    else
        PyErr_SetString(engine_error, c->hangs ? "it has not answered for a minute" : "it is gone");
    return NULL;
}

/* A deadline is a taken jump at or behind it: the shim rings shortly before, and from there the guest is stepped, by the
 * shim itself where nobody else looks at each instruction. */
static int run_guest(Core *c, int steps, int guest_steps)
{
    volatile uint64_t *w = c->word;
    const int told = w[RIP] == c->stopped_at && w[RETIRED] == c->stopped_when;
    if (!told && is_stop(c, w[RIP]))
        return stop_exit(c);
    const int near = w[RETIRED] + AHEAD >= w[DEADLINE];
    w[MAIL_ALARM] = near ? ~0ULL : w[DEADLINE] - AHEAD;
    c->stepping = steps || c->stops.n || near;
    c->guest_steps = guest_steps;
    w[MAIL_ENTERED] = w[RIP];
    w[MAIL_TO_JUMP] = near && !steps && !guest_steps && !c->stops.n ? STEPS : 0;
    w[MAIL_FLAGS] = (c->stepping ? TF : 0) | (told ? RF : 0);
    w[CODE_SWITCH] = 0;
    w[WATCH_SIZE] = w[WATCH2_SIZE] = 0;
    if (!tell_of_stores(c) || !command(c, COMMAND_RUN))
        return -1;
    const int kind = classify(c, steps), trapped = w[MAIL_VECTOR] == DB;
    c->jumps = kind == EXIT_SYSCALL || kind == EXIT_INVALID || (kind == EXIT_EXCEPTION && !trapped);
    if (trapped && w[MAIL_DR6] & SINGLE_STEP)
        c->jumps = has_jumped_in(c) || (kind == EXIT_EXCEPTION && w[EXIT_ERROR_CODE]);
    if (kind == EXIT_DONE && !trapped && w[MAIL_VECTOR] != VECTOR_TIMER && (steps || guest_steps))
        return debug_exit(c, guest_steps);
    return kind;
}

/* What comes next: that of an in or out that was reported, a deadline, what leaves the guest. */
static int next_exit(Core *c)
{
    volatile uint64_t *w = c->word;
    const int steps = w[STEP] != 0, guest_steps = (w[RFLAGS] & TF) != 0;
    int jumps = c->jumps || w[RIP] != c->left_at || w[CR3] != c->left_root;
    c->jumps = 0;
    w[RETIRED] += (uint64_t)c->before;
    c->before = 0;
    const int completed = complete_port(c);
    if (completed < 0)
        return -1;
    if (completed)
        jumps = w[RIP] == c->left_at; /* to its next time round */
    if (completed && (steps || guest_steps))
        return debug_exit(c, guest_steps);
    if (jumps && w[RETIRED] >= w[DEADLINE])
        return EXIT_DEADLINE;
    const int round = completed ? next_round(c) : -1;
    if (round < 0)
        return run_guest(c, steps, guest_steps);
    c->jumps = round == EXIT_EXCEPTION;
    return round;
}

/* run(): to the next exit. */
static PyObject *core_run(Core *c, PyObject *unused)
{
    (void)unused;
    volatile uint64_t *w = c->word;
    for (;;) {
        if (out_of_patience(c))
            return PyLong_FromLong(EXIT_WAITED);
        const int kind = next_exit(c);
        if (kind < 0)
            return died(c);
        c->left_at = w[RIP];
        c->left_root = w[CR3];
        if (kind == EXIT_DONE)
            continue;
        if (kind == EXIT_STOP_POINT)
            return PyLong_FromLong(kind);
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

int touch(Core *c, uint64_t maddr)
{
    uint64_t *entry = (uint64_t *)((char *)c->ram.buf + c->entries + 8 * PAGE_TOUCH);
    const uint64_t own = *entry;
    *entry = (maddr & ~0xfffULL) | PAGE_ENTRY;
    const int alive = command(c, COMMAND_TOUCH);
    *entry = own;
    return alive;
}

/* touch(maddr): the engine's side wrote to this page, which may hold code. */
static PyObject *core_touch(Core *c, PyObject *page)
{
    const uint64_t maddr = PyLong_AsUnsignedLongLong(page);
    if (PyErr_Occurred())
        return NULL;
    if (!touch(c, maddr))
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

/* scan(addresses): stop points beyond the debug registers. */
static PyObject *core_scan(Core *c, PyObject *addresses)
{
    Stops stops;
    if (!stops_read(&stops, addresses))
        return NULL;
    stops_free(&c->stops);
    c->stops = stops;
    Py_RETURN_NONE;
}

static PyObject *core_use_reflex(Core *c, PyObject *capsule)
{
    return take_reflex(capsule, &c->reflex, &c->reflex_owner);
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

/* Core(ram, at, entries): the mailbox is at byte `at` of the shared memory, the window's page-table entries at
 * `entries`. */
static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *ram;
    Py_ssize_t at, entries;
    (void)keywords;
    if (!PyArg_ParseTuple(args, "Onn", &ram, &at, &entries))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Core *c = (Core *)allocate(type, 0);
    if (!c)
        return NULL;
    c->port.kind = c->load = -1;
    c->stopped_when = ~0ULL;
    c->jumps = 1;
    c->dead = 1;
    if (PyObject_GetBuffer(ram, &c->ram, PyBUF_WRITABLE) < 0 || at < 0 || at + 4096 > c->ram.len || entries < 0 ||
        entries + 8 * PAGES > c->ram.len) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the mailbox is not in the memory");
        Py_DECREF((PyObject *)c);
        return NULL;
    }
    c->entries = (uint64_t)entries;
    c->word = (volatile uint64_t *)((char *)c->ram.buf + at);
    return (PyObject *)c;
}

static void core_dealloc(Core *c)
{
    PyTypeObject *type = Py_TYPE((PyObject *)c);
    Py_XDECREF(core_close(c, NULL));
    stops_free(&c->stops);
    if (c->ram.obj)
        PyBuffer_Release(&c->ram);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(c);
    Py_DECREF(type);
}

static int core_getbuffer(Core *c, Py_buffer *view, int flags)
{
    (void)flags;
    return show_words((PyObject *)c, (uint64_t *)c->word, view);
}

static PyMethodDef core_methods[] = {
    {"begin", (PyCFunction)core_begin, METH_VARARGS, "begin(pid, bell, gate): wait for the shim"},
    {"run", (PyCFunction)core_run, METH_NOARGS, "run() -> exit kind"},
    {"command", (PyCFunction)core_command, METH_O, "command(what)"},
    {"touch", (PyCFunction)core_touch, METH_O, "touch(maddr)"},
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
    F(N_WORDS) F(PAGE_EXTENDED) F(PAGE_ROOT) F(PAGE_APIC) F(PAGE_CODE) F(PAGE_MAIL) F(PAGES) F(MAIL_DR) F(MAIL_DR7) \
    F(MAIL_DR6) F(MAIL_LDT) F(MAIL_GDT) F(MAIL_RDTSCP_COUNTED) F(MAIL_SCALE) F(PORT_BELL) \
    F(PORT_GATE) F(COMMAND_SAVE) F(COMMAND_RESTORE) F(COMMAND_LDT) \
    F(COMMAND_DEBUG) F(COMMAND_XCR0) F(MAIL_XCR0) F(MAIL_STATES)

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
