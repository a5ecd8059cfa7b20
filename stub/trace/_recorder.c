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

static int part_from(PyObject *bytes, Part *part)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(bytes, &data, &size) < 0)
        return 0;
    *part = (Part){data, size < PART_CAP ? (size_t)size : PART_CAP};
    return 1;
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
    Part payload, out;
    if (!arguments(n, 11) || !words_from(args, 9, words) || !part_from(args[9], &payload) || !part_from(args[10], &out))
        return NULL;
    const uint64_t nr = words[2];
    if (nr > 255) /* does not fit its field */
        return PyObject_CallMethod((PyObject *)r, "_wide_call", "iOOO(OOOOO)OOO", kind, args[0], args[1], args[2], args[3],
                                   args[4], args[5], args[6], args[7], args[8], args[9], args[10]);
    if (!recorder_make_room(r))
        return NULL;
    recorder_append(r, kind, (int)nr, words[0], words[1], words + 3, 6, payload, out);
    r->calls[nr]++;
    Py_RETURN_NONE;
}

static PyObject *hypercall(Recorder *r, PyObject *const *args, Py_ssize_t n) { return call(r, args, n, KIND_HYPERCALL); }

static PyObject *nested(Recorder *r, PyObject *const *args, Py_ssize_t n) { return call(r, args, n, KIND_NESTED); }

static PyObject *exception(Recorder *r, PyObject *const *args, Py_ssize_t n)
{
    uint64_t words[8];
    if (!arguments(n, 8) || !words_from(args, 8, words) || !recorder_make_room(r))
        return NULL;
    recorder_append(r, KIND_EXCEPTION, (int)words[2], words[0], words[1], words + 3, 5, (Part){0}, (Part){0});
    r->exceptions[words[2] & 255]++;
    Py_RETURN_NONE;
}

/* _append(kind, code, time_ns, rip, words, payload, out) */
static PyObject *append(Recorder *r, PyObject *const *args, Py_ssize_t n)
{
    uint64_t head[4], words[16];
    Part payload, out;
    if (!arguments(n, 7) || !words_from(args, 4, head) || !part_from(args[5], &payload) || !part_from(args[6], &out))
        return NULL;
    const Py_ssize_t n_words = PyTuple_Size(args[4]);
    if (n_words < 0)
        return NULL;
    if (n_words > 16 || head[0] == 0 || head[0] >= N_KINDS)
        return PyErr_SetString(PyExc_ValueError, "no such record"), NULL;
    for (Py_ssize_t i = 0; i < n_words; i++)
        words[i] = PyLong_AsUnsignedLongLongMask(PyTuple_GetItem(args[4], i));
    if (PyErr_Occurred() || !recorder_make_room(r))
        return NULL;
    recorder_append(r, (int)head[0], (int)head[1], head[2], head[3], words, (size_t)n_words, payload, out);
    r->records[head[0]]++;
    Py_RETURN_NONE;
}

static PyObject *detach(Recorder *r, PyObject *unused)
{
    (void)unused;
    if (r->window.obj)
        PyBuffer_Release(&r->window);
    r->window.obj = NULL;
    Py_RETURN_NONE;
}

/* _attach(window, at, limit) */
static PyObject *attach(Recorder *r, PyObject *args)
{
    PyObject *window;
    unsigned long long at, limit;
    if (!PyArg_ParseTuple(args, "OKK", &window, &at, &limit))
        return NULL;
    Py_XDECREF(detach(r, NULL));
    if (PyObject_GetBuffer(window, &r->window, PyBUF_WRITABLE) < 0)
        return NULL;
    if (at > (uint64_t)r->window.len || limit > (uint64_t)r->window.len) {
        Py_XDECREF(detach(r, NULL));
        return PyErr_SetString(PyExc_ValueError, "outside of the window"), NULL;
    }
    r->at = at;
    r->limit = limit;
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
    Py_XDECREF(detach(r, NULL));
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(r);
    Py_DECREF(type);
}

#define FAST(name, function) {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    FAST("hypercall", hypercall),
    FAST("nested", nested),
    FAST("exception", exception),
    FAST("_append", append),
    {"_attach", (PyCFunction)attach, METH_VARARGS, NULL},
    {"_detach", (PyCFunction)detach, METH_NOARGS, NULL},
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

static PyType_Spec spec = {"stub.trace._recorder.Recorder", sizeof(Recorder), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_recorder", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__recorder(void)
{
    PyObject *m = PyModule_Create(&module);
    PyObject *type = PyType_FromSpec(&spec);
    if (!m || !type || PyModule_AddObjectRef(m, "Recorder", type) < 0)
        return NULL;
    return m;
}
