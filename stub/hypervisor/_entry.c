/* The entries (entry.h) as Python calls them, and the hypercall that is being answered. */
#include "entry.h"
#include <structmember.h>

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
    return PyErr_Occurred() ? NULL : PyLong_FromLong(bounce(e, address, masks_events, words, (size_t)n, (Flags){.cleared = clear}));
}

/* trap(vector, address, masks_events, is_fault, error_code, cr2): the last two may be None. */
static PyObject *py_trap(Entry *e, PyObject *args)
{
    int vector, masks_events, is_fault;
    unsigned long long address;
    PyObject *code, *cr2;
    if (!PyArg_ParseTuple(args, "iKppOO", &vector, &address, &masks_events, &is_fault, &code, &cr2) ||
        !recorder_make_room(e->log))
        return NULL;
    const uint64_t error_code = code == Py_None ? 0 : PyLong_AsUnsignedLongLongMask(code);
    const uint64_t fault = cr2 == Py_None ? 0 : PyLong_AsUnsignedLongLongMask(cr2);
    if (PyErr_Occurred())
        return NULL;
    const Trap t = {address, masks_events, is_fault, code == Py_None ? NULL : &error_code,
                    cr2 == Py_None ? NULL : &fault};
    return PyLong_FromLong(trap(e, vector, &t));
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

/* call() -> (nr, a1, a2, a3, a4, a5), of the hypercall that left the guest; None if it was user code's system call (a
 * 32-bit guest's hypercalls are no syscall instructions, so that those are none of its calls). It is kept for the record
 * that answer() makes, when the handler has changed the registers. */
static PyObject *py_call(Entry *e, PyObject *unused)
{
    (void)unused;
    static const int from64[6] = {RAX, RDI, RSI, RDX, R10, R8}, from32[6] = {RAX, RBX, RCX, RDX, RSI, RDI};
    const int *from = e->compat ? from32 : from64;
    const uint64_t mask = e->compat ? 0xffffffff : ~0ULL;
    uint64_t *w = registers(e);
    if (e->compat ? !w[EXIT_SOFTWARE] : !e->kernel_mode)
        Py_RETURN_NONE;
    if (!e->compat && w[CS] != FLAT_KERNEL_CS && is_runnable(e, w[CS], 0)) { /* the instruction forgets what the segments were */
        w[CS] = FLAT_KERNEL_CS;
        w[SS] = FLAT_KERNEL_SS;
    }
    PyObject *call = PyTuple_New(6);
    for (int i = 0; call && i < 6; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(w[from[i]] & mask);
        if (!number || PyTuple_SetItem(call, i, number) < 0)
            Py_CLEAR(call);
    }
    e->call[0] = now(w);
    e->call[1] = w[RIP] - 2;
    for (int i = 0; i < 6; i++)
        e->call[i + 2] = w[from[i]] & mask;
    return call;
}

/* answer(rc, payload, out): the result for the guest, and the record; rc None where the handler has set RAX. */
static PyObject *py_answer(Entry *e, PyObject *const *args, Py_ssize_t n)
{
    uint64_t *w = registers(e);
    if (n != 3)
        return PyErr_SetString(PyExc_TypeError, "rc, payload, out"), NULL;
    if (args[0] != Py_None) {
        const uint64_t rc = PyLong_AsUnsignedLongLongMask(args[0]);
        if (PyErr_Occurred())
            return NULL;
        w[RAX] = e->compat ? rc & 0xffffffff : rc;
        e->call[8] = rc;
    } else {
        e->call[8] = w[RAX];
    }
    if (!recorder_call(e->log, KIND_HYPERCALL, e->call, args[1], args[2]))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_switch_mode(Entry *e, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(switch_mode(e));
}

static PyObject *py_set_page_fault(Entry *e, PyObject *args)
{
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "Kp", &address, &e->page_fault.masks_events))
        return NULL;
    e->page_fault.address = address;
    Py_RETURN_NONE;
}

static PyObject *py_set_syscall(Entry *e, PyObject *args)
{
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "Kp", &address, &e->syscall.masks_events))
        return NULL;
    e->syscall.address = address;
    Py_RETURN_NONE;
}

static PyObject *py_add_runnable(Entry *e, PyObject *args)
{
    unsigned short cs, ss;
    if (!PyArg_ParseTuple(args, "HH", &cs, &ss))
        return NULL;
    if (!is_runnable(e, cs, ss) && e->n_runnable < MOST_RUNNABLE) {
        e->runnable[e->n_runnable].cs = cs;
        e->runnable[e->n_runnable++].ss = ss;
    }
    Py_RETURN_NONE;
}

/* add_pair(cs, ss, their descriptors), of a 32-bit guest */
static PyObject *py_add_pair(Entry *e, PyObject *args)
{
    unsigned short cs, ss;
    unsigned long long code, stack;
    if (!PyArg_ParseTuple(args, "HHKK", &cs, &ss, &code, &stack))
        return NULL;
    for (int i = 0; i < e->n_pairs; i++)
        if (e->pairs[i].cs == cs && e->pairs[i].ss == ss)
            Py_RETURN_NONE;
    if (e->n_pairs < MOST_RUNNABLE)
        e->pairs[e->n_pairs++] = (Pair){cs, ss, code, stack};
    Py_RETURN_NONE;
}

/* _set_gate(vector, cs, address, masks_events): an entry of a 32-bit guest's trap table */
static PyObject *py_set_gate(Entry *e, PyObject *args)
{
    int vector, masks_events;
    unsigned short cs;
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "iHKp", &vector, &cs, &address, &masks_events))
        return NULL;
    if (vector == 0x80)
        e->int80 = (CompatGate){(uint32_t)address, cs, masks_events};
    else if (vector == 14)
        e->compat_page_fault = (CompatGate){(uint32_t)address, cs, masks_events};
    Py_RETURN_NONE;
}

static PyObject *py_clear_runnable(Entry *e, PyObject *unused)
{
    (void)unused;
    e->n_runnable = e->n_pairs = 0;
    Py_RETURN_NONE;
}

/* spins(): counts the cpuid at hand; whether the guest waits by it */
static PyObject *py_spins(Entry *e, PyObject *unused)
{
    (void)unused;
    const int enough = spins_enough(e, registers(e));
    count_spin(e, registers(e));
    return PyBool_FromLong(enough);
}

/* _set_cpuid(leaves): as Leaf lays them out */
static PyObject *py_set_cpuid(Entry *e, PyObject *bytes)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(bytes, &data, &size) < 0)
        return NULL;
    if (size % (Py_ssize_t)sizeof(Leaf) || size > (Py_ssize_t)sizeof e->leaves)
        return PyErr_SetString(PyExc_ValueError, "not a table of leaves"), NULL;
    memcpy(e->leaves, data, (size_t)size);
    e->n_leaves = (int)(size / (Py_ssize_t)sizeof(Leaf));
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
    PyTypeObject *walk = imported("stub.memory._walk", "Walk");
    PyTypeObject *recorder = imported("stub.trace._recorder", "Recorder");
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
            e->trapped_at = e->resumed_when = ~0ULL;
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
    {"_set_page_fault", (PyCFunction)py_set_page_fault, METH_VARARGS, NULL},
    {"_set_syscall", (PyCFunction)py_set_syscall, METH_VARARGS, NULL},
    {"spins", (PyCFunction)py_spins, METH_NOARGS, NULL},
    {"_set_cpuid", (PyCFunction)py_set_cpuid, METH_O, NULL},
    {"add_runnable", (PyCFunction)py_add_runnable, METH_VARARGS, NULL},
    {"add_pair", (PyCFunction)py_add_pair, METH_VARARGS, NULL},
    {"_set_gate", (PyCFunction)py_set_gate, METH_VARARGS, NULL},
    {"clear_runnable", (PyCFunction)py_clear_runnable, METH_NOARGS, NULL},
    {"reflex", (PyCFunction)py_reflex, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

#define MEMBER(name, kind, flags) {#name, kind, offsetof(Entry, name), flags, NULL}
static PyMemberDef members[] = {
    MEMBER(compat, T_BOOL, 0),
    MEMBER(kernel_ss, T_USHORT, 0),
    MEMBER(trapped_at, T_ULONGLONG, 0),
    MEMBER(traps_there, T_ULONGLONG, 0),
    MEMBER(kernel_mode, T_BOOL, 0),
    MEMBER(nmi_masked, T_BOOL, 0),
    MEMBER(writable_pagetables, T_BOOL, 0),
    MEMBER(architectural_iopl, T_BOOL, 0),
    MEMBER(watches_ports, T_BOOL, 0),
    MEMBER(iopl, T_UBYTE, 0),
    MEMBER(kernel_root, T_ULONGLONG, 0),
    MEMBER(user_root, T_ULONGLONG, 0),
    MEMBER(kernel_sp, T_ULONGLONG, 0),
    MEMBER(gs_base_other, T_ULONGLONG, 0),
    MEMBER(info_at, T_ULONGLONG, 0),
    MEMBER(cr2, T_ULONGLONG, 0),
    MEMBER(fault_at, T_ULONGLONG, 0),
    MEMBER(came_rip, T_ULONGLONG, 0),
    MEMBER(came_rsp, T_ULONGLONG, 0),
    MEMBER(resumed_when, T_ULONGLONG, 0),
    {"call_time", T_ULONGLONG, offsetof(Entry, call[0]), READONLY, NULL},
    {"call_rip", T_ULONGLONG, offsetof(Entry, call[1]), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, entry_new},
    {Py_tp_dealloc, entry_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {
    "stub.hypervisor._entry.Entry", sizeof(Entry), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_entry", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__entry(void)
{
    static const struct { const char *name; int value; } constants[] = {
        {"DONE", DONE}, {"NO_HANDLER", NO_HANDLER}, {"STACK_FAULT", STACK_FAULT}, {"TOO_MANY", TOO_MANY},
        {"FRAME_FAULT", FRAME_FAULT}, {"NO_USER_TABLE", NO_USER_TABLE}, {"LOOK", LOOK},
        {"TRAPS_IN_A_ROW", TRAPS_IN_A_ROW},
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
