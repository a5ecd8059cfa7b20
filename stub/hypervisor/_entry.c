/* Into the guest's kernel and out of it: bounce frames, the iret hypercall, the switch between a 64-bit guest's two
 * modes; what Xen has in assembly (x86_64/entry.S, create_bounce_frame; pv/iret.c; pv/domain.c, toggle_guest_mode).
 *
 * Python decides and keeps the tables: it registers handlers and selectors here, and calls bounce(), trap() and iret().
 * What those tables answer entirely is done at once, as a reflex of the engine's (engine.h): a page fault that only the
 * guest can handle, its iret, a system call of user code, a read of a port that nothing answers. Whatever is unusual
 * about one of these is left to Python, untouched. */
#include "stub/engine/engine.h"
#include "stub/memory/walk.h"
#include "stub/trace/recorder.h"
#include <structmember.h>

enum { /* outcomes */
    DONE,
    NO_HANDLER,
    STACK_FAULT,   /* at fault_at */
    TOO_MANY,      /* traps without an instruction between */
    FRAME_FAULT,   /* at fault_at, while the iret frame was read */
    NOT_CANONICAL, /* rip, in fault_at */
    NO_USER_TABLE,
    SELECTORS,     /* done, but whether ring 3 can run with the new CS and SS is not known here */
};

enum { IF = 0x200, DF = 0x400, IOPL = 0x3000, RF = 0x10000, ALWAYS = 0x202 };
enum { CLEARED_ON_ENTRY = 0x40000 /* AC */ | 0x20000 /* VM */ | RF | 0x4000 /* NT */ | 0x100 /* TF */ };
#define FROM_IRET (0x247fd7 & ~IOPL) /* the flags that iret may give back */
#define VGCF_IN_SYSCALL 0x100
#define KERNEL_CS 0xe033 /* FLAT_KERNEL_CS, FLAT_KERNEL_SS */
#define KERNEL_SS 0xe02b
#define HYPERCALL_IRET 23
#define TRAPS_IN_A_ROW 10000
#define INFO_MASK 1
#define INFO_CR2 16
enum { PFEC_P = 1, PFEC_W = 2, PFEC_U = 4, PFEC_RSVD = 8, PFEC_I = 16 };

typedef struct {
    PyObject_HEAD
    Py_buffer words;
    Walk *memory;
    Recorder *log;
    char kernel_mode, nmi_masked, writable_pagetables, architectural_iopl;
    unsigned char iopl;
    unsigned long long kernel_root, user_root; /* MFNs; 0 for none */
    unsigned long long kernel_sp, gs_base_other, info_at, cr2;
    unsigned long long fault_at, came_rip, came_rsp;
    unsigned long long trapped_at, traps_there;
    struct { uint64_t address; int masks_events; } page_fault, syscall;
    struct { uint16_t cs, ss; } runnable[8]; /* 64-bit code and its stack, known to be good */
    int n_runnable;
    struct { unsigned long long time, rip, nr, args[5]; } call; /* the hypercall at hand */
    Reflex reflex;
} Entry;

static uint64_t *registers(Entry *e) { return e->words.buf; }
static uint8_t *events_masked(Entry *e) { return walk_ram(e->memory) + e->info_at + INFO_MASK; }
static uint64_t now(const uint64_t *w) { return w[RETIRED] + w[TIME_SKEW]; }

static int is_canonical(uint64_t address) { return (uint64_t)((int64_t)(address << 16) >> 16) == address; }

/* toggle_guest_mode: the other root table and GS base; 0 where there is no user table. */
static int switch_mode(Entry *e)
{
    uint64_t *w = registers(e);
    const uint64_t root = (e->kernel_mode ? e->user_root : e->kernel_root) << 12;
    if (!root)
        return 0;
    const uint64_t gs_base = w[GS_BASE];
    e->kernel_mode = !e->kernel_mode;
    w[GS_BASE] = e->gs_base_other;
    e->gs_base_other = gs_base;
    if (w[CR3] == root) /* the CPU would see no change */
        w[FLUSH] = 1;
    w[CR3] = e->memory->root = root;
    return 1;
}

/* Copies `n` words to a stack whose top is 16-byte aligned; nothing is written unless all of it can be. */
static int push(Entry *e, uint64_t root, uint64_t bottom, const uint64_t *words, size_t n)
{
    uint64_t first, second = 0;
    const size_t size = 8 * n, room = 4096 - (bottom & 4095), head = size < room ? size : room;
    e->fault_at = bottom;
    if (walk_translate(e->memory, root, bottom, WALK_WRITE, &first))
        return 0;
    e->fault_at = bottom + head;
    if (head < size && walk_translate(e->memory, root, bottom + head, WALK_WRITE, &second))
        return 0;
    memcpy(walk_ram(e->memory) + first, words, head);
    memcpy(walk_ram(e->memory) + second, (const uint8_t *)words + head, size - head);
    return 1;
}

/* create_bounce_frame: rcx, r11, `extra` (an error code, or the data selectors of a failsafe callback), rip, cs, rflags,
 * rsp, ss go on the kernel's stack, and its handler runs. All of it is done or nothing. */
static int bounce(Entry *e, uint64_t address, int masks_events, const uint64_t *extra, size_t n_extra, uint64_t clear)
{
    uint64_t *w = registers(e), frame[16], *f = frame;
    const int from_kernel = e->kernel_mode;
    const uint64_t mask = *events_masked(e) & 1, flags = w[RFLAGS] & ~(uint64_t)(IF | IOPL);
    if (!address)
        return NO_HANDLER;
    *f++ = w[RCX];
    *f++ = w[R11];
    for (size_t i = 0; i < n_extra; i++)
        *f++ = extra[i];
    *f++ = w[RIP];
    *f++ = (from_kernel ? w[CS] & 0xfffc : w[CS] | 3) | mask << 32;
    *f++ = flags | (mask ? 0 : IF) | (e->architectural_iopl ? (uint64_t)e->iopl << 12 : 0);
    *f++ = w[RSP];
    *f++ = w[SS];
    const size_t n = (size_t)(f - frame);
    const uint64_t bottom = ((from_kernel ? w[RSP] : e->kernel_sp) & ~15ULL) - 8 * n;
    if (!push(e, from_kernel ? e->memory->root : e->kernel_root << 12, bottom, frame, n))
        return STACK_FAULT;
    e->came_rip = w[RIP];
    e->came_rsp = w[RSP];
    if (!from_kernel)
        switch_mode(e);
    if (masks_events)
        *events_masked(e) = 1;
    w[RIP] = address;
    w[RFLAGS] = (flags & ~(clear | CLEARED_ON_ENTRY)) | ALWAYS;
    w[CS] = KERNEL_CS;
    w[SS] = KERNEL_SS;
    w[RSP] = bottom;
    return DONE;
}

/* An exception for the guest's handler, with its record (pv_inject_event). There must be room in the log. */
static int trap(Entry *e, int vector, uint64_t address, int masks_events, int has_code, uint64_t code, const uint64_t *cr2)
{
    uint64_t *w = registers(e);
    const uint64_t user = !e->kernel_mode;
    if (cr2) {
        e->cr2 = *cr2;
        memcpy(walk_ram(e->memory) + e->info_at + INFO_CR2, cr2, sizeof *cr2);
    }
    if (w[RETIRED] != e->trapped_at) {
        e->trapped_at = w[RETIRED];
        e->traps_there = 0;
    }
    if (++e->traps_there > TRAPS_IN_A_ROW) /* time stands still there, and no limit would end it */
        return TOO_MANY;
    const int outcome = bounce(e, address, masks_events, &code, has_code ? 1 : 0, 0);
    if (outcome == DONE) {
        const uint64_t words[5] = {has_code ? code : ~0ULL, cr2 ? *cr2 : 0, e->came_rsp, address, user};
        recorder_append(e->log, KIND_EXCEPTION, vector, now(w), e->came_rip, words, 5, (Part){0}, (Part){0});
        e->log->exceptions[vector & 255]++;
    }
    return outcome;
}

typedef struct {
    uint64_t rax, r11, rcx, flags, rip, cs, rflags, rsp, ss;
} IretFrame;

static int read_frame(Entry *e, IretFrame *frame)
{
    const uint64_t at = registers(e)[RSP];
    uint8_t *to = (uint8_t *)frame;
    for (size_t done = 0; done < sizeof *frame;) {
        uint64_t maddr;
        size_t piece = 4096 - ((at + done) & 4095);
        if (piece > sizeof *frame - done)
            piece = sizeof *frame - done;
        e->fault_at = at + done;
        if (walk_translate(e->memory, e->memory->root, at + done, WALK_READ, &maddr))
            return 0;
        memcpy(to + done, walk_ram(e->memory) + maddr, piece);
        done += piece;
    }
    return 1;
}

/* Whether code runs in 64-bit mode with this CS, and with this SS unless it is 0, as far as is known here. */
static int known(const Entry *e, uint64_t cs, uint64_t ss)
{
    if (cs == KERNEL_CS && (!ss || ss == KERNEL_SS))
        return 1;
    for (int i = 0; i < e->n_runnable; i++)
        if (e->runnable[i].cs == cs && (!ss || e->runnable[i].ss == ss))
            return 1;
    return 0;
}

/* do_iret: to the kernel, or to user code. */
static int iret(Entry *e, const IretFrame *frame)
{
    uint64_t *w = registers(e);
    e->fault_at = frame->rip;
    if (!is_canonical(frame->rip))
        return NOT_CANONICAL;
    if (((frame->cs & 3) == 3) == (e->kernel_mode != 0) && !switch_mode(e))
        return NO_USER_TABLE;
    const uint64_t old_cs = w[CS];
    *events_masked(e) = frame->rflags & IF ? 0 : 1;
    const int in_syscall = (frame->flags & VGCF_IN_SYSCALL) != 0;
    w[RAX] = frame->rax;
    w[RCX] = in_syscall ? frame->rip : frame->rcx;
    w[R11] = in_syscall ? frame->rflags : frame->r11;
    if (e->architectural_iopl)
        e->iopl = frame->rflags >> 12 & 3;
    w[RIP] = frame->rip;
    w[RFLAGS] = (frame->rflags & FROM_IRET) | ALWAYS;
    w[CS] = (frame->cs | 3) & 0xffff;
    w[SS] = (frame->ss | 3) & 0xffff;
    w[RSP] = frame->rsp;
    e->nmi_masked = 0;
    return known(e, old_cs, 0) && known(e, w[CS], w[SS]) ? DONE : SELECTORS;
}

/* -- the reflex */

static int page_fault_reflex(Entry *e)
{
    uint64_t *w = registers(e), address = w[CR2], code = w[EXIT_ERROR_CODE];
    const uint64_t kind = code & (PFEC_W | PFEC_P | PFEC_RSVD | PFEC_I);
    if (w[EXIT_VECTOR] != 14 || w[EXIT_SOFTWARE] || !e->page_fault.address || !known(e, w[CS], 0) ||
        (address >= HYPERVISOR_START && address < HYPERVISOR_END) ||
        (e->kernel_mode && e->writable_pagetables && kind == (PFEC_W | PFEC_P)) || e->traps_there >= TRAPS_IN_A_ROW)
        return 0;
    code = (code & ~(uint64_t)PFEC_U) | (e->kernel_mode ? 0 : PFEC_U);
    return trap(e, 14, e->page_fault.address, e->page_fault.masks_events, 1, code, &address) == DONE;
}

static int iret_reflex(Entry *e)
{
    uint64_t *w = registers(e);
    const uint64_t rip = w[RIP] - 2, args[5] = {w[RDI], w[RSI], w[RDX], w[R10], w[R8]};
    IretFrame frame;
    if (e->nmi_masked || e->architectural_iopl || !read_frame(e, &frame) || frame.rflags & RF ||
        !is_canonical(frame.rip) || !known(e, w[CS], 0) || !known(e, (frame.cs | 3) & 0xffff, (frame.ss | 3) & 0xffff) ||
        ((frame.cs & 3) == 3 && !e->user_root))
        return 0;
    iret(e, &frame);
    const uint64_t words[6] = {args[0], args[1], args[2], args[3], args[4], w[RAX]};
    recorder_append(e->log, KIND_HYPERCALL, HYPERCALL_IRET, now(w), rip, words, 6, (Part){&frame, sizeof frame}, (Part){0});
    e->log->calls[HYPERCALL_IRET]++;
    return 1;
}

static int port_reflex(Entry *e)
{
    uint64_t *w = registers(e);
    if (e->iopl < (e->kernel_mode ? 1 : 3) || (w[EXIT_PORT] == 0xcf8 && w[EXIT_SIZE] == 4))
        return 0;
    w[EXIT_VALUE] = (1ULL << 8 * w[EXIT_SIZE]) - 1; /* no device there: all ones */
    const uint64_t words[3] = {w[EXIT_PORT], w[EXIT_SIZE], w[EXIT_VALUE]};
    recorder_append(e->log, KIND_PORT_IO, 0, now(w), w[RIP], words, 3, (Part){0}, (Part){0});
    e->log->records[KIND_PORT_IO]++;
    return 1;
}

static int act(void *state, uint64_t *w, int kind)
{
    Entry *e = state;
    int done = 0;
    if (!recorder_has_room(e->log))
        return REFLEX_NOT_MINE;
    if (kind == EXIT_EXCEPTION)
        done = page_fault_reflex(e);
    else if (kind == EXIT_IN)
        done = port_reflex(e);
    else if (kind == EXIT_SYSCALL && e->kernel_mode)
        done = w[RAX] == HYPERCALL_IRET && iret_reflex(e);
    else if (kind == EXIT_SYSCALL)
        done = known(e, w[CS], 0) && bounce(e, e->syscall.address, e->syscall.masks_events, NULL, 0, DF) == DONE;
    if (!done)
        return REFLEX_NOT_MINE;
    const uint8_t *info = walk_ram(e->memory) + e->info_at;
    return info[0] && !info[INFO_MASK] ? REFLEX_LOOK : REFLEX_DONE;
}

/* -- as Python sees it */

/* bounce(address, masks_events, extra, clear) */
static PyObject *py_bounce(Entry *e, PyObject *args)
{
    unsigned long long address, clear = 0;
    int masks_events;
    PyObject *extra = NULL;
    uint64_t words[4];
    if (!PyArg_ParseTuple(args, "Kp|O!K", &address, &masks_events, &PyTuple_Type, &extra, &clear))
        return NULL;
    const Py_ssize_t n = extra ? PyTuple_Size(extra) : 0;
    if (n > 4)
        return PyErr_SetString(PyExc_ValueError, "more than four words"), NULL;
    for (Py_ssize_t i = 0; i < n; i++)
        words[i] = PyLong_AsUnsignedLongLongMask(PyTuple_GetItem(extra, i));
    return PyErr_Occurred() ? NULL : PyLong_FromLong(bounce(e, address, masks_events, words, (size_t)n, clear));
}

/* trap(vector, address, masks_events, error_code, cr2): the last two may be None. */
static PyObject *py_trap(Entry *e, PyObject *args)
{
    int vector, masks_events;
    unsigned long long address;
    PyObject *code, *cr2;
    if (!PyArg_ParseTuple(args, "iKpOO", &vector, &address, &masks_events, &code, &cr2) || !recorder_make_room(e->log))
        return NULL;
    const uint64_t error_code = code == Py_None ? 0 : PyLong_AsUnsignedLongLongMask(code);
    const uint64_t fault = cr2 == Py_None ? 0 : PyLong_AsUnsignedLongLongMask(cr2);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromLong(trap(e, vector, address, masks_events, code != Py_None, error_code, cr2 == Py_None ? NULL : &fault));
}

/* iret() -> (outcome, frame's bytes) */
static PyObject *py_iret(Entry *e, PyObject *unused)
{
    (void)unused;
    IretFrame frame;
    if (!read_frame(e, &frame))
        return Py_BuildValue("iy#", FRAME_FAULT, "", (Py_ssize_t)0);
    const int outcome = iret(e, &frame);
    return Py_BuildValue("iy#", outcome, (const char *)&frame, (Py_ssize_t)sizeof frame);
}

/* call() -> (nr, a1, a2, a3, a4, a5), of the hypercall that left the guest; None if it was user code's system call. */
static PyObject *py_call(Entry *e, PyObject *unused)
{
    (void)unused;
    static const int from[6] = {RAX, RDI, RSI, RDX, R10, R8};
    const uint64_t *w = registers(e);
    if (!e->kernel_mode)
        Py_RETURN_NONE;
    PyObject *call = PyTuple_New(6);
    for (int i = 0; call && i < 6; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(w[from[i]]);
        if (!number || PyTuple_SetItem(call, i, number) < 0)
            Py_CLEAR(call);
    }
    e->call.time = now(w);
    e->call.rip = w[RIP] - 2;
    e->call.nr = w[RAX];
    for (int i = 0; i < 5; i++)
        e->call.args[i] = w[from[i + 1]];
    return call;
}

/* answer(rc, payload, out): the result for the guest, and the record; rc None where the handler has set RAX. */
static PyObject *py_answer(Entry *e, PyObject *const *args, Py_ssize_t n)
{
    uint64_t *w = registers(e);
    Part parts[2];
    if (n != 3)
        return PyErr_SetString(PyExc_TypeError, "rc, payload, out"), NULL;
    for (int i = 0; i < 2; i++) {
        char *bytes;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(args[i + 1], &bytes, &size) < 0)
            return NULL;
        parts[i] = (Part){bytes, size < PART_CAP ? (size_t)size : PART_CAP};
    }
    if (args[0] != Py_None) {
        const uint64_t rc = PyLong_AsUnsignedLongLongMask(args[0]);
        if (PyErr_Occurred())
            return NULL;
        w[RAX] = rc;
    }
    if (e->call.nr > 255)
        return PyObject_CallMethod((PyObject *)e->log, "hypercall", "KKKKKKKKLOO", e->call.time, e->call.rip, e->call.nr,
                                   e->call.args[0], e->call.args[1], e->call.args[2], e->call.args[3], e->call.args[4],
                                   (long long)w[RAX], args[1], args[2]);
    if (!recorder_make_room(e->log))
        return NULL;
    const uint64_t words[6] = {e->call.args[0], e->call.args[1], e->call.args[2], e->call.args[3], e->call.args[4], w[RAX]};
    recorder_append(e->log, KIND_HYPERCALL, (int)e->call.nr, e->call.time, e->call.rip, words, 6, parts[0], parts[1]);
    e->log->calls[e->call.nr]++;
    Py_RETURN_NONE;
}

static PyObject *py_switch_mode(Entry *e, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(switch_mode(e));
}

static PyObject *set_page_fault(Entry *e, PyObject *args)
{
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "Kp", &address, &e->page_fault.masks_events))
        return NULL;
    e->page_fault.address = address;
    Py_RETURN_NONE;
}

static PyObject *set_syscall(Entry *e, PyObject *args)
{
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "Kp", &address, &e->syscall.masks_events))
        return NULL;
    e->syscall.address = address;
    Py_RETURN_NONE;
}

static PyObject *allow(Entry *e, PyObject *args)
{
    unsigned short cs, ss;
    if (!PyArg_ParseTuple(args, "HH", &cs, &ss))
        return NULL;
    if (!known(e, cs, ss) && e->n_runnable < 8) {
        e->runnable[e->n_runnable].cs = cs;
        e->runnable[e->n_runnable++].ss = ss;
    }
    Py_RETURN_NONE;
}

static PyObject *forget_selectors(Entry *e, PyObject *unused)
{
    (void)unused;
    e->n_runnable = 0;
    Py_RETURN_NONE;
}

static void drop_owner(PyObject *capsule) { Py_XDECREF((PyObject *)PyCapsule_GetContext(capsule)); }

static PyObject *py_reflex(Entry *e, PyObject *unused)
{
    (void)unused;
    e->reflex = (Reflex){act, e};
    PyObject *capsule = PyCapsule_New(&e->reflex, REFLEX_NAME, drop_owner);
    if (!capsule)
        return NULL;
    Py_INCREF((PyObject *)e);
    PyCapsule_SetContext(capsule, e);
    return capsule;
}

static PyTypeObject *imported(const char *module, const char *name)
{
    PyObject *m = PyImport_ImportModule(module);
    PyObject *type = m ? PyObject_GetAttrString(m, name) : NULL;
    Py_XDECREF(m);
    return (PyTypeObject *)type;
}

/* Entry(words, memory, log): the register file, guest memory, the hypercall log. */
static PyObject *entry_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *words, *memory, *log;
    (void)keywords;
    PyTypeObject *walk = imported("stub.memory._walk", "Walk"), *recorder = imported("stub.trace._recorder", "Recorder");
    Entry *e = NULL;
    if (walk && recorder && PyArg_ParseTuple(args, "OO!O!", &words, walk, &memory, recorder, &log)) {
        allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
        e = (Entry *)allocate(type, 0);
        if (e && PyObject_GetBuffer(words, &e->words, PyBUF_WRITABLE) == 0 && e->words.len == 8 * N_WORDS) {
            Py_INCREF(memory);
            Py_INCREF(log);
            e->memory = (Walk *)memory;
            e->log = (Recorder *)log;
            e->kernel_mode = 1;
            e->trapped_at = ~0ULL;
        } else if (e) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "not a register file of this version");
            Py_DECREF(e);
            e = NULL;
        }
    }
    Py_XDECREF((PyObject *)walk);
    Py_XDECREF((PyObject *)recorder);
    return (PyObject *)e;
}

static void entry_dealloc(Entry *e)
{
    PyTypeObject *type = Py_TYPE((PyObject *)e);
    if (e->words.obj)
        PyBuffer_Release(&e->words);
    Py_CLEAR(e->memory);
    Py_CLEAR(e->log);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(e);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"bounce", (PyCFunction)py_bounce, METH_VARARGS, NULL},
    {"trap", (PyCFunction)py_trap, METH_VARARGS, NULL},
    {"call", (PyCFunction)py_call, METH_NOARGS, NULL},
    {"answer", (PyCFunction)(void (*)(void))py_answer, METH_FASTCALL, NULL},
    {"iret", (PyCFunction)py_iret, METH_NOARGS, NULL},
    {"switch_mode", (PyCFunction)py_switch_mode, METH_NOARGS, NULL},
    {"_set_page_fault", (PyCFunction)set_page_fault, METH_VARARGS, NULL},
    {"_set_syscall", (PyCFunction)set_syscall, METH_VARARGS, NULL},
    {"allow", (PyCFunction)allow, METH_VARARGS, NULL},
    {"forget_selectors", (PyCFunction)forget_selectors, METH_NOARGS, NULL},
    {"reflex", (PyCFunction)py_reflex, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

#define MEMBER(name, kind, flags) {#name, kind, offsetof(Entry, name), flags, NULL}
static PyMemberDef members[] = {
    MEMBER(kernel_mode, T_BOOL, 0),
    MEMBER(nmi_masked, T_BOOL, 0),
    MEMBER(writable_pagetables, T_BOOL, 0),
    MEMBER(architectural_iopl, T_BOOL, 0),
    MEMBER(iopl, T_UBYTE, 0),
    MEMBER(kernel_root, T_ULONGLONG, 0),
    MEMBER(user_root, T_ULONGLONG, 0),
    MEMBER(kernel_sp, T_ULONGLONG, 0),
    MEMBER(gs_base_other, T_ULONGLONG, 0),
    MEMBER(info_at, T_ULONGLONG, 0),
    MEMBER(cr2, T_ULONGLONG, 0),
    MEMBER(fault_at, T_ULONGLONG, READONLY),
    MEMBER(came_rip, T_ULONGLONG, READONLY),
    MEMBER(came_rsp, T_ULONGLONG, READONLY),
    {"call_time", T_ULONGLONG, offsetof(Entry, call.time), READONLY, NULL},
    {"call_rip", T_ULONGLONG, offsetof(Entry, call.rip), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, entry_new},
    {Py_tp_dealloc, entry_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {"stub.hypervisor._entry.Entry", sizeof(Entry), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_entry", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__entry(void)
{
    static const struct { const char *name; int value; } constants[] = {
        {"DONE", DONE}, {"NO_HANDLER", NO_HANDLER}, {"STACK_FAULT", STACK_FAULT}, {"TOO_MANY", TOO_MANY},
        {"FRAME_FAULT", FRAME_FAULT}, {"NOT_CANONICAL", NOT_CANONICAL}, {"NO_USER_TABLE", NO_USER_TABLE},
        {"SELECTORS", SELECTORS}, {"TRAPS_IN_A_ROW", TRAPS_IN_A_ROW},
    };
    PyObject *m = PyModule_Create(&module);
    PyObject *type = PyType_FromSpec(&spec);
    if (!m || !type || PyModule_AddObjectRef(m, "Entry", type) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(m, constants[i].name, constants[i].value) < 0)
            return NULL;
    return m;
}
