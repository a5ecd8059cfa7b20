/* The hypercall log's records as Python writes them; what a file and its windows are is writer.py's. */
#include "recorder.h"
#include <structmember.h>

/* The first `n` arguments as 64-bit words; what is out of range is cut. */
static int words_from(PyObject *const *args, Py_ssize_t n, uint64_t *words)
{
    for (Py_ssize_t i = 0; i < n; i++)
        words[i] = PyLong_AsUnsignedLongLongMask(args[i]);
    return !PyErr_Occurred();
}

static int arguments(Py_ssize_t n, Py_ssize_t wanted)
{
    if (n != wanted)
        PyErr_Format(PyExc_TypeError, "%zd arguments instead of %zd", n, wanted);
    return n == wanted;
}

static PyObject *call(Recorder *r, PyObject *const *args, Py_ssize_t n, int kind)
{
    uint64_t words[9];
    if (!arguments(n, 11) || !words_from(args, 9, words) || !recorder_call(r, kind, words, args[9], args[10]))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_hypercall(Recorder *r, PyObject *const *args, Py_ssize_t n)
{
    return call(r, args, n, KIND_HYPERCALL);
}

static PyObject *py_nested(Recorder *r, PyObject *const *args, Py_ssize_t n) { return call(r, args, n, KIND_NESTED); }

static PyObject *py_exception(Recorder *r, PyObject *const *args, Py_ssize_t n)
{
    uint64_t words[8];
    if (!arguments(n, 8) || !words_from(args, 8, words) || !recorder_make_room(r))
        return NULL;
    recorder_append(r, KIND_EXCEPTION, (int)words[2], words[0], words[1], words + 3, 5, (Part){0}, (Part){0});
    Py_RETURN_NONE;
}

/* _cpuid(time_ns, rip, forced, leaf and subleaf, a and b, c and d) */
static PyObject *py_cpuid(Recorder *r, PyObject *const *args, Py_ssize_t n)
{
    uint64_t words[6];
    if (!arguments(n, 6) || !words_from(args, 6, words) || !recorder_make_room(r))
        return NULL;
    recorder_cpuid(r, words[2] != 0, words[0], words[1], words + 3);
    Py_RETURN_NONE;
}

/* _append(kind, code, time_ns, rip, words[, payload[, out]]): any record. */
static PyObject *py_append(Recorder *r, PyObject *const *args, Py_ssize_t n)
{
    uint64_t head[4], words[WORDS_CAP];
    Part parts[2] = {{0}};
    if (n < 5 || n > 7)
        return PyErr_Format(PyExc_TypeError, "%zd arguments instead of 5 to 7", n), NULL;
    if (!words_from(args, 4, head))
        return NULL;
    for (Py_ssize_t i = 5; i < n; i++)
        if (!recorder_part(args[i], &parts[i - 5]))
            return NULL;
    const Py_ssize_t n_words = PyTuple_Size(args[4]);
    if (n_words < 0)
        return NULL;
    if (n_words > WORDS_CAP || head[0] == 0 || head[0] >= N_KINDS)
        return PyErr_SetString(PyExc_ValueError, "no such record"), NULL;
    for (Py_ssize_t i = 0; i < n_words; i++)
        words[i] = PyLong_AsUnsignedLongLongMask(PyTuple_GetItem(args[4], i));
    if (PyErr_Occurred() || !recorder_make_room(r))
        return NULL;
    recorder_append(r, (int)head[0], (int)head[1], head[2], head[3], words, (size_t)n_words, parts[0], parts[1]);
    Py_RETURN_NONE;
}

static void detach(Recorder *r)
{
    if (r->window.obj)
        PyBuffer_Release(&r->window);
    r->window.obj = NULL;
}

static PyObject *py_detach(Recorder *r, PyObject *unused)
{
    (void)unused;
    detach(r);
    Py_RETURN_NONE;
}

/* _attach(window, at, limit) */
static PyObject *py_attach(Recorder *r, PyObject *args)
{
    PyObject *window;
    unsigned long long at, limit;
    if (!PyArg_ParseTuple(args, "OKK", &window, &at, &limit))
        return NULL;
    detach(r);
    if (PyObject_GetBuffer(window, &r->window, PyBUF_WRITABLE) < 0)
        return NULL;
    if (at > (uint64_t)r->window.len || limit > (uint64_t)r->window.len) {
        detach(r);
        return PyErr_SetString(PyExc_ValueError, "outside of the window"), NULL;
    }
    r->at = at;
    r->limit = limit;
    r->cpuid.end = 0;
    Py_RETURN_NONE;
}

static PyObject *numbers(const unsigned long long *values, Py_ssize_t n)
{
    PyObject *list = PyList_New(n);
    for (Py_ssize_t i = 0; list && i < n; i++)
        PyList_SetItem(list, i, PyLong_FromUnsignedLongLong(values[i]));
    return list;
}

static PyObject *get_calls(Recorder *r, void *unused) { return (void)unused, numbers(r->calls, 256); }
static PyObject *get_exceptions(Recorder *r, void *unused) { return (void)unused, numbers(r->exceptions, 256); }
static PyObject *get_records(Recorder *r, void *unused) { return (void)unused, numbers(r->records, N_KINDS); }

static void recorder_dealloc(Recorder *r)
{
    PyTypeObject *type = Py_TYPE((PyObject *)r);
    detach(r);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(r);
    Py_DECREF(type);
}

#define FAST(name, function) {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    FAST("hypercall", py_hypercall),
    FAST("nested", py_nested),
    FAST("exception", py_exception),
    FAST("_cpuid", py_cpuid),
    FAST("_append", py_append),
    {"_attach", (PyCFunction)py_attach, METH_VARARGS, NULL},
    {"_detach", (PyCFunction)py_detach, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"_at", T_ULONGLONG, offsetof(Recorder, at), READONLY, NULL},
    {"vcpu", T_UBYTE, offsetof(Recorder, vcpu), 0, NULL},
    {"off", T_BOOL, offsetof(Recorder, off), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"_calls", (getter)get_calls, NULL, NULL, NULL},
    {"_exceptions", (getter)get_exceptions, NULL, NULL, NULL},
    {"_records", (getter)get_records, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, recorder_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec spec = {
    "stub.trace._recorder.Recorder", sizeof(Recorder), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_recorder", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__recorder(void)
{
    PyObject *m = PyModule_Create(&module);
    PyObject *type = PyType_FromSpec(&spec);
    if (!m || !type || PyModule_AddObjectRef(m, "Recorder", type) < 0)
        return NULL;
    return m;
}
