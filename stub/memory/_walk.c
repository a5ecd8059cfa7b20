/* Guest memory by virtual address, as Python reads and writes it (guest.py says what is meant). */
#include "walk.h"
#include <structmember.h>

enum { PAGE = 4096 };

static PyObject *fault(Walk *w, PyObject *vaddr, int write, int outcome)
{
    PyObject *error = PyObject_CallFunction(w->fault, "Oii", vaddr, write, outcome == WALK_REFUSED);
    if (error) {
        PyErr_SetObject(w->fault, error);
        Py_DECREF(error);
    }
    return NULL;
}

static PyObject *fault_at(Walk *w, uint64_t vaddr, int write, int outcome)
{
    PyObject *number = PyLong_FromUnsignedLongLong(vaddr);
    if (number) {
        fault(w, number, write, outcome);
        Py_DECREF(number);
    }
    return NULL;
}

/* An address from Python; one that is none faults. */
static int address_from(Walk *w, PyObject *object, int write, uint64_t *vaddr)
{
    *vaddr = PyLong_AsUnsignedLongLong(object);
    if (!PyErr_Occurred())
        return 1;
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        fault(w, object, write, WALK_ABSENT);
    }
    return 0;
}

static int arguments(Py_ssize_t n, Py_ssize_t least, Py_ssize_t most)
{
    if (n < least || n > most)
        PyErr_Format(PyExc_TypeError, "%zd arguments", n);
    return n >= least && n <= most;
}

static PyObject *located(Walk *w, uint64_t root, PyObject *address, int how)
{
    uint64_t vaddr, maddr;
    if (!address_from(w, address, how == WALK_WRITE, &vaddr))
        return NULL;
    const int outcome = walk_translate(w, root, vaddr, how, &maddr);
    return outcome ? fault(w, address, how == WALK_WRITE, outcome) : PyLong_FromUnsignedLongLong(maddr);
}

static PyObject *py_locate(Walk *w, PyObject *const *args, Py_ssize_t n)
{
    if (!arguments(n, 1, 2))
        return NULL;
    const int write = n == 2 ? PyObject_IsTrue(args[1]) : 0;
    return write < 0 ? NULL : located(w, w->root, args[0], write ? WALK_WRITE : WALK_READ);
}

static PyObject *py_locate_any(Walk *w, PyObject *address) { return located(w, w->root, address, WALK_ANYWHERE); }

static PyObject *py_locate_from(Walk *w, PyObject *const *args, Py_ssize_t n)
{
    if (!arguments(n, 2, 2))
        return NULL;
    const uint64_t root = PyLong_AsUnsignedLongLong(args[0]);
    if (PyErr_Occurred())
        return NULL;
    if (root >= (uint64_t)w->ram.len)
        return fault(w, args[1], 0, WALK_ABSENT);
    return located(w, root & FRAME_BITS, args[1], WALK_READ);
}

/* Copies between a buffer and guest memory, page by page. `buffer` NULL: only looks whether it can be done. Returns
 * the bytes done; `outcome` tells what stopped it. */
static size_t copy(Walk *w, uint64_t vaddr, uint8_t *buffer, size_t size, int how, int *outcome)
{
    size_t done = 0;
    *outcome = WALK_FOUND;
    while (done < size) {
        uint64_t maddr, at = vaddr + done;
        size_t piece = PAGE - (at & (PAGE - 1));
        if (piece > size - done)
            piece = size - done;
        *outcome = at < vaddr ? WALK_ABSENT : walk_translate(w, w->root, at, how, &maddr);
        if (*outcome)
            break;
        if (buffer && how == WALK_WRITE)
            memcpy(walk_ram(w) + maddr, buffer + done, piece);
        else if (buffer)
            memcpy(buffer + done, walk_ram(w) + maddr, piece);
        done += piece;
    }
    return done;
}

static PyObject *read_bytes(Walk *w, PyObject *const *args, Py_ssize_t n, int how)
{
    uint64_t vaddr;
    int outcome;
    if (!arguments(n, 2, 2) || !address_from(w, args[0], 0, &vaddr))
        return NULL;
    Py_ssize_t size = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred())
        return NULL;
    size_t there = copy(w, vaddr, NULL, size > 0 ? (size_t)size : 0, how, &outcome);
    if (outcome && how != WALK_ANYWHERE)
        return fault_at(w, vaddr + there, 0, outcome);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)there);
    if (bytes)
        copy(w, vaddr, (uint8_t *)PyBytes_AsString(bytes), there, how, &outcome);
    return bytes;
}

static PyObject *py_read(Walk *w, PyObject *const *args, Py_ssize_t n) { return read_bytes(w, args, n, WALK_READ); }

static PyObject *py_read_available(Walk *w, PyObject *const *args, Py_ssize_t n)
{
    return read_bytes(w, args, n, WALK_ANYWHERE);
}

static PyObject *write_from(Walk *w, PyObject *address, const void *data, size_t size)
{
    uint64_t vaddr;
    int outcome;
    if (!address_from(w, address, 1, &vaddr))
        return NULL;
    const size_t there = (vaddr & (PAGE - 1)) + size > PAGE ? copy(w, vaddr, NULL, size, WALK_WRITE, &outcome) : size;
    if (there < size)
        return fault_at(w, vaddr + there, 1, outcome);
    copy(w, vaddr, (uint8_t *)data, size, WALK_WRITE, &outcome);
    if (outcome)
        return fault_at(w, vaddr, 1, outcome);
    Py_RETURN_NONE;
}

static PyObject *py_write(Walk *w, PyObject *const *args, Py_ssize_t n)
{
    char *data;
    Py_ssize_t size;
    if (!arguments(n, 2, 2) || PyBytes_AsStringAndSize(args[1], &data, &size) < 0)
        return NULL;
    return write_from(w, args[0], data, (size_t)size);
}

static PyObject *read_number(Walk *w, PyObject *address, size_t size)
{
    uint64_t vaddr, value = 0;
    int outcome;
    if (!address_from(w, address, 0, &vaddr))
        return NULL;
    const size_t there = copy(w, vaddr, (uint8_t *)&value, size, WALK_READ, &outcome);
    return outcome ? fault_at(w, vaddr + there, 0, outcome) : PyLong_FromUnsignedLongLong(value);
}

static PyObject *write_number(Walk *w, PyObject *const *args, Py_ssize_t n, size_t size)
{
    if (!arguments(n, 2, 2))
        return NULL;
    const uint64_t value = PyLong_AsUnsignedLongLongMask(args[1]);
    return PyErr_Occurred() ? NULL : write_from(w, args[0], &value, size);
}

static PyObject *py_read_u32(Walk *w, PyObject *address) { return read_number(w, address, 4); }
static PyObject *py_read_u64(Walk *w, PyObject *address) { return read_number(w, address, 8); }
static PyObject *py_write_u32(Walk *w, PyObject *const *args, Py_ssize_t n) { return write_number(w, args, n, 4); }
static PyObject *py_write_u64(Walk *w, PyObject *const *args, Py_ssize_t n) { return write_number(w, args, n, 8); }

static PyObject *walk_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"ram", "fault", NULL};
    PyObject *ram, *fault;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO", names, &ram, &fault))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Walk *w = (Walk *)allocate(type, 0);
    if (!w)
        return NULL;
    if (PyObject_GetBuffer(ram, &w->ram, PyBUF_WRITABLE) < 0) {
        Py_DECREF(w);
        return NULL;
    }
    Py_INCREF(fault);
    w->fault = fault;
    return (PyObject *)w;
}

static void walk_dealloc(Walk *w)
{
    PyTypeObject *type = Py_TYPE((PyObject *)w);
    if (w->ram.obj)
        PyBuffer_Release(&w->ram);
    Py_CLEAR(w->fault);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(w);
    Py_DECREF(type);
}

static PyObject *get_root(Walk *w, void *unused) { return (void)unused, PyLong_FromUnsignedLongLong(w->root); }

static int set_root(Walk *w, PyObject *value, void *unused)
{
    (void)unused;
    const uint64_t root = value ? PyLong_AsUnsignedLongLong(value) : 0;
    if (PyErr_Occurred())
        return -1;
    if (!value || root & (PAGE - 1) || root >= (uint64_t)w->ram.len) {
        PyErr_SetString(PyExc_ValueError, "no such root table");
        return -1;
    }
    w->root = root;
    return 0;
}

#define FAST(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, NULL}
#define ONE(name) {#name, (PyCFunction)py_##name, METH_O, NULL}
static PyMethodDef methods[] = {
    FAST(locate), ONE(locate_any), FAST(locate_from), FAST(read), FAST(read_available), FAST(write),
    ONE(read_u32), ONE(read_u64), FAST(write_u32), FAST(write_u64), {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"root", (getter)get_root, (setter)set_root, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"limit", T_ULONGLONG, offsetof(Walk, limit), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, walk_new},
    {Py_tp_dealloc, walk_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {"stub.memory._walk.Walk", sizeof(Walk), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_walk", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__walk(void)
{
    PyObject *m = PyModule_Create(&module);
    PyObject *type = PyType_FromSpec(&spec);
    if (!m || !type || PyModule_AddObjectRef(m, "Walk", type) < 0)
        return NULL;
    return m;
}
