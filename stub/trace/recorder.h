/* The hypercall log's hot part: a record is put straight into the window of the log's file that is mapped now.
 * The format is that of format.py; the kinds named here are the ones that are written often. */
#ifndef PVSTUB_RECORDER_H
#define PVSTUB_RECORDER_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { KIND_HYPERCALL = 1, KIND_NESTED = 2, KIND_EXCEPTION = 5, KIND_UPCALL = 6, KIND_PORT_IO = 9, N_KINDS = 32 };
enum { PART_CAP = 0xffff };

typedef struct {
    PyObject_HEAD
    Py_buffer window;     /* obj NULL: none */
    unsigned long long at, limit; /* the next record's place; none begins behind the limit */
    unsigned char vcpu;
    char off; /* records are thrown away: to measure what they cost */
    unsigned long long calls[256], exceptions[256], records[N_KINDS];
} Recorder;

typedef struct {
    const void *bytes;
    size_t size; /* at most PART_CAP */
} Part;

/* Room for one more record of any size, without help. */
static inline int recorder_has_room(const Recorder *r) { return r->window.obj && r->at <= r->limit; }

/* The same, moving the window on if need be; 0 with a Python exception set. */
static inline int recorder_make_room(Recorder *r)
{
    if (recorder_has_room(r))
        return 1;
    PyObject *done = PyObject_CallMethod((PyObject *)r, "_advance", NULL);
    Py_XDECREF(done);
    if (done && !recorder_has_room(r))
        PyErr_SetString(PyExc_ValueError, "the hypercall log has no window");
    return done && recorder_has_room(r);
}

/* Appends a record; there must be room. The kind byte is stored last: a reader sees a whole record or none. */
static inline void recorder_append(Recorder *r, int kind, int code, uint64_t time, uint64_t rip, const uint64_t *words,
                                   size_t n_words, Part payload, Part out)
{
    if (r->off)
        return;
    uint8_t *record = (uint8_t *)r->window.buf + r->at;
    const uint16_t sizes[2] = {(uint16_t)payload.size, (uint16_t)out.size};
    const uint64_t when[2] = {time, rip};
    record[1] = r->vcpu;
    record[2] = (uint8_t)code;
    record[3] = (uint8_t)n_words;
    memcpy(record + 4, sizes, sizeof sizes);
    memcpy(record + 8, when, sizeof when);
    uint8_t *end = record + 24;
    memcpy(end, words, 8 * n_words);
    end += 8 * n_words;
    if (payload.size)
        memcpy(end, payload.bytes, payload.size);
    end += payload.size;
    if (out.size)
        memcpy(end, out.bytes, out.size);
    end += out.size;
    __atomic_store_n(record, (uint8_t)kind, __ATOMIC_RELEASE);
    r->at = (unsigned long long)(end - (uint8_t *)r->window.buf);
}

#endif
