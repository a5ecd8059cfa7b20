/* What the engines' Python objects have in common: the register file as a buffer, the reflex, the stop points. */
#ifndef PVSTUB_ENGINE_OBJECT_H
#define PVSTUB_ENGINE_OBJECT_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#include "stub/engine/engine.h"

typedef struct {
    uint64_t *addresses; /* in order */
    size_t n;
} Stops;

/* How many of them are below `address`. */
static inline size_t stops_below(const Stops *stops, uint64_t address)
{
    size_t low = 0, high = stops->n;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (stops->addresses[middle] < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static inline int stops_by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static inline void stops_free(Stops *stops)
{
    free(stops->addresses);
    *stops = (Stops){NULL, 0};
}

/* Those of a Python sequence; 0 and an error if it is none of addresses. */
static inline int stops_read(Stops *stops, PyObject *addresses)
{
    PyObject *list = PySequence_List(addresses);
    if (!list)
        return 0;
    stops->n = (size_t)PyList_Size(list);
    stops->addresses = calloc(stops->n + 1, sizeof *stops->addresses);
    if (!stops->addresses)
        PyErr_NoMemory();
    for (size_t i = 0; !PyErr_Occurred() && i < stops->n; i++)
        stops->addresses[i] = PyLong_AsUnsignedLongLong(PyList_GetItem(list, (Py_ssize_t)i));
    Py_DECREF(list);
    if (PyErr_Occurred()) {
        stops_free(stops);
        return 0;
    }
    qsort(stops->addresses, stops->n, sizeof *stops->addresses, stops_by_value);
    return 1;
}

/* use_reflex(capsule): what may finish exits before the caller sees them; None: nothing. */
static inline PyObject *take_reflex(PyObject *capsule, const Reflex **reflex, PyObject **owner)
{
    const Reflex *found = capsule == Py_None ? NULL : PyCapsule_GetPointer(capsule, REFLEX_NAME);
    if (PyErr_Occurred())
        return NULL;
    PyObject *old = *owner;
    *owner = Py_NewRef(capsule);
    *reflex = found;
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

/* The register file of an engine, as a buffer. */
static inline int show_words(PyObject *engine, uint64_t *words, Py_buffer *view)
{
    static Py_ssize_t shape[1] = {N_WORDS}, strides[1] = {8};
    *view = (Py_buffer){
        .buf = words, .obj = Py_NewRef(engine), .len = N_WORDS * 8, .itemsize = 8, .format = "Q", .ndim = 1,
        .shape = shape, .strides = strides,
    };
    return 0;
}

#endif
