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

enum { KIND_HYPERCALL = 1, KIND_NESTED = 2, KIND_EXCEPTION = 5, KIND_CPUID = 7, KIND_PORT_IO = 9, N_KINDS = 32 };
enum { HEAD_SIZE = 24, WORDS_CAP = 16, PART_CAP = 0xffff };

typedef struct {
    PyObject_HEAD
    Py_buffer window;     /* obj NULL: none */
    unsigned long long at, limit; /* the next record's place; none begins behind the limit */
    unsigned char vcpu;
    char off; /* records are thrown away: to measure what they cost */
    struct { unsigned long long end; uint64_t rip, words[3]; } cpuid; /* the last cpuid that the guest executed */
    unsigned long long calls[256], exceptions[256], records[N_KINDS]; /* by number, by vector, the rest by kind */
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

/* The bytes of a record's part; what is too long is cut. 0 with a Python exception set where it is no bytes object. */
static inline int recorder_part(PyObject *bytes, Part *part)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(bytes, &data, &size) < 0)
        return 0;
    *part = (Part){data, size < PART_CAP ? (size_t)size : PART_CAP};
    return 1;
}

/* Appends a record and counts it; there must be room. The kind byte is stored last: a reader sees a whole record or
 * none. */
static inline void recorder_append(Recorder *r, int kind, int code, uint64_t time, uint64_t rip, const uint64_t *words,
                                   size_t n_words, Part payload, Part out)
{
    if (kind == KIND_HYPERCALL || kind == KIND_NESTED)
        r->calls[code & 255]++;
    else if (kind == KIND_EXCEPTION)
        r->exceptions[code & 255]++;
    else
        r->records[kind]++;
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
    uint8_t *end = record + HEAD_SIZE;
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

/* A cpuid: leaf and subleaf, then the answer; there must be room. One that the guest executes again and again, with
 * nothing between, is counted each time and written once: GRUB reads the time that way while it waits for a key. */
static inline void recorder_cpuid(Recorder *r, int forced, uint64_t time, uint64_t rip, const uint64_t words[3])
{
    if (!forced && r->at == r->cpuid.end && rip == r->cpuid.rip && !memcmp(words, r->cpuid.words, 24)) {
        r->records[KIND_CPUID]++;
        return;
    }
    recorder_append(r, KIND_CPUID, forced, time, rip, words, 3, (Part){0}, (Part){0});
    if (!forced) {
        r->cpuid.end = r->at;
        r->cpuid.rip = rip;
        memcpy(r->cpuid.words, words, 24);
    }
}

/* A hypercall's record: (time, rip, nr, five arguments, result). 0 with a Python exception set. */
static inline int recorder_call(Recorder *r, int kind, const uint64_t call[9], PyObject *payload, PyObject *out)
{
    Part parts[2];
    if (!recorder_part(payload, &parts[0]) || !recorder_part(out, &parts[1]))
        return 0;
    if (call[2] > 255) { /* does not fit its field */
        PyObject *done =
            PyObject_CallMethod((PyObject *)r, "_wide_call", "iKKK(KKKKK)LOO", kind, call[0], call[1], call[2], call[3],
                                call[4], call[5], call[6], call[7], call[8], payload, out);
        Py_XDECREF(done);
        return done != NULL;
    }
    if (!recorder_make_room(r))
        return 0;
    recorder_append(r, kind, (int)call[2], call[0], call[1], call + 3, 6, parts[0], parts[1]);
    return 1;
}

#endif
