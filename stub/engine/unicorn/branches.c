/* The last branches, kept while somebody wants them.
 *
 * Then every block is a special one (count.c): the deadline that translated code counts down to is 0, and the true one is
 * looked at there. */
#include "core.h"

/* Whether the deadline was reached. */
int deadline_reached(const Core *c)
{
    return c->n_branches ? counted() >= c->word[DEADLINE] : hot.left <= 0;
}

/* The block at `to` begins, and the one before it did not end there. */
void note_branch(Core *c, uint64_t to)
{
    if (c->n_branches)
        c->branches[c->branches_taken++ % c->n_branches] = (Branch){end_of_block(), to};
}

PyObject *core_keep_branches(Core *c, PyObject *how_many)
{
    const size_t n = PyLong_AsSize_t(how_many);
    if (PyErr_Occurred())
        return NULL;
    if (!c->uc)
        return fail("branches after the end", UC_ERR_HANDLE);
    Branch *branches = n ? calloc(n, sizeof *branches) : NULL;
    if (n && !branches)
        return PyErr_NoMemory();
    free(c->branches);
    c->branches = branches;
    c->n_branches = n;
    c->branches_taken = 0;
    Py_RETURN_NONE;
}

PyObject *core_branches(Core *c, PyObject *none)
{
    (void)none;
    const uint64_t kept = c->branches_taken < c->n_branches ? c->branches_taken : c->n_branches;
    PyObject *list = PyList_New((Py_ssize_t)kept);
    for (uint64_t i = 0; list && i < kept; i++) {
        const Branch *b = &c->branches[(c->branches_taken - kept + i) % c->n_branches];
        PyObject *pair = Py_BuildValue("KK", b->behind == NOWHERE ? 0ULL : (unsigned long long)b->behind,
                                       (unsigned long long)b->to);
        if (!pair) {
            Py_CLEAR(list);
            break;
        }
        PyList_SetItem(list, (Py_ssize_t)i, pair);
    }
    return list;
}
