/*
 * The hot inner part of the Unicorn engine: count, stop, record, resume. It holds no policy.
 *
 * Law of the file: libunicorn's emulation loop is entered once and never left while the guest lives. It runs on a
 * stack of its own; at every exit a hook switches to the caller's stack (leave) and the next run() switches back
 * into that hook, which applies what the caller changed in the register file and returns to the guest. Nothing is
 * restarted, so an exit costs two stack switches, and no program counter can go stale.
 *
 * Counting. Each translated block owns a slot that holds its instruction count. libunicorn bakes the block hook's
 * user_data into the code that it generates, so the hook object's user_data is pointed at a fresh slot after every
 * translation (its place in the object is found at start-up, never assumed). Translated code counts by itself where it
 * can (inline.c). A block cut short by an exception counts what lies before the faulting instruction; the caller is
 * asked once for that number (LEARN) and it is kept by slot and address.
 *
 * Deadlines stop at the first taken control transfer at or after the deadline: a place that depends on the
 * instructions alone and not on how they were cut into blocks.
 *
 * Shortcuts. libunicorn calls a few of its own functions through its symbol table, and shortcuts.c, tlb.c and inline.c
 * define functions of the same names that come first (ELF symbol interposition). They leave out a call in every block
 * that only asks whether to stop (the block hook knows), read page tables from guest memory directly, keep stores to
 * data that may be executed, but never is, off a slow path, and drop no more translations than they must. Where a build
 * binds its symbols otherwise they are never called and all is as before, only slower.
 *
 * Ending a block from the middle. After a hook inside a block (in, out, cpuid, rdtsc) libunicorn runs on to the
 * block's end whatever the hook did. Where the caller moved the program counter there, the block is drained: with an
 * empty page table loaded any access faults, and at the next hook the wanted state is put in place whole.
 */
#include "core.h"

struct library lib;
PyObject *engine_error;
Core *running;
Hot hot;

const int register_ids[N_REGISTERS] = {
    UC_X86_REG_RAX, UC_X86_REG_RCX, UC_X86_REG_RDX, UC_X86_REG_RBX, UC_X86_REG_RSP, UC_X86_REG_RBP, UC_X86_REG_RSI,
    UC_X86_REG_RDI, UC_X86_REG_R8, UC_X86_REG_R9, UC_X86_REG_R10, UC_X86_REG_R11, UC_X86_REG_R12, UC_X86_REG_R13,
    UC_X86_REG_R14, UC_X86_REG_R15, UC_X86_REG_RIP, UC_X86_REG_RFLAGS, UC_X86_REG_CS, UC_X86_REG_SS, UC_X86_REG_DS,
    UC_X86_REG_ES, UC_X86_REG_FS, UC_X86_REG_GS, UC_X86_REG_FS_BASE, UC_X86_REG_GS_BASE, UC_X86_REG_CR0,
    UC_X86_REG_CR2, UC_X86_REG_CR3, UC_X86_REG_CR4,
};

PyObject *fail(const char *what, uc_err error)
{
    PyErr_Format(engine_error, "unicorn engine: %s: %s", what, lib.uc_strerror ? lib.uc_strerror(error) : "?");
    return NULL;
}

static int load_library(const char *path)
{
    if (lib.handle)
        return 1;
    come_first();
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        PyErr_Format(engine_error, "unicorn engine: cannot load %s: %s", path, dlerror());
        return 0;
    }
#define RESOLVE(name) \
    if (!(lib.name = (__typeof__(&name))dlsym(handle, #name))) { \
        PyErr_Format(engine_error, "unicorn engine: %s has no %s", path, #name); \
        return 0; \
    }
    LIBRARY_FUNCTIONS(RESOLVE)
#undef RESOLVE
    find_own_functions(handle);
    lib.handle = handle;
    return 1;
}

static int core_setup(Core *c, unsigned long long ram_base)
{
    uc_err e = lib.uc_open(UC_ARCH_X86, UC_MODE_64, &c->uc);
    if (e != UC_ERR_OK)
        return fail("cannot open", e), 0;
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_CPU_MODEL, 1), UC_CPU_X86_EPYC);
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TCG_BUFFER_SIZE, 1), (uint32_t)(96 << 20));
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TLB_TYPE, 1), UC_TLB_CPU);
    lib.uc_context_alloc(c->uc, &c->context);
    lib.uc_context_alloc(c->uc, &c->target);
    c->context_size = lib.uc_context_size(c->uc);
    if (!calibrate(c)) {
        PyErr_SetString(engine_error,
                        "unicorn engine: cannot find the exception state of this build of libunicorn; use 2.1.4");
        return 0;
    }
    e = lib.uc_mem_map_ptr(c->uc, ram_base, (size_t)c->ram.len, UC_PROT_ALL, c->ram.buf);
    if (e != UC_ERR_OK)
        return fail("cannot map guest memory", e), 0;
    c->executed = calloc((size_t)c->ram.len >> 12, 1);
    return add_hooks(c);
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"library", "ram", "answer", NULL};
    const char *library;
    PyObject *ram, *answer;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "sOO", names, &library, &ram, &answer) || !load_library(library))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Core *c = (Core *)allocate(type, 0);
    if (!c)
        return NULL;
    c->learnt_mask = 1023;
    c->learnt = calloc(1024, sizeof(Learnt));
    c->word[DEADLINE] = ~0ULL;
    c->sequel = c->stopped_at = NOWHERE;
    Py_INCREF(answer);
    c->answer = answer;
    if (PyObject_GetBuffer(ram, &c->ram, PyBUF_WRITABLE) < 0 || !core_setup(c, 0)) {
        Py_DECREF(c);
        return NULL;
    }
    return (PyObject *)c;
}

/* Everything but the register file. */
static void release(Core *c)
{
    if (running == c)
        running = NULL;
    c->alive = 0;
    if (c->uc) {
        if (c->context)
            lib.uc_context_free(c->context);
        if (c->target)
            lib.uc_context_free(c->target);
        lib.uc_close(c->uc);
        c->uc = NULL;
    }
    for (size_t i = 0; i < c->n_chunks; i++)
        free(c->chunks[i]);
    free(c->chunks);
    free(c->learnt);
    free(c->executed);
    stops_free(&c->stops);
    free(c->watched);
    free(c->branches);
    c->chunks = NULL, c->learnt = NULL, c->executed = NULL, c->watched = NULL;
    c->branches = NULL;
    c->n_watched = c->n_branches = 0;
    c->n_chunks = c->n_slots = 0;
    if (c->stack)
        munmap(c->stack, STACK_SIZE);
    c->stack = NULL;
    if (c->ram.obj)
        PyBuffer_Release(&c->ram);
    Py_CLEAR(c->answer);
    c->reflex = NULL;
    Py_CLEAR(c->reflex_owner);
}

static PyObject *core_close(Core *c, PyObject *unused)
{
    (void)unused;
    release(c);
    Py_RETURN_NONE;
}

static void core_dealloc(Core *c)
{
    PyTypeObject *type = Py_TYPE((PyObject *)c);
    release(c);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(c);
    Py_DECREF(type);
}

/* start(trampoline, stack, gdt, limit, drain_cr3): begin at ring 0 in a page that holds iretq; the first exit comes
 * from the guest itself. The register file must hold CR0, CR3, CR4. */
static PyObject *core_start(Core *c, PyObject *args)
{
    unsigned long long trampoline, stack, gdt, limit, drain;
    if (!PyArg_ParseTuple(args, "KKKKK", &trampoline, &stack, &gdt, &limit, &drain))
        return NULL;
    const uc_x86_mmr gdtr = {0, gdt, (uint32_t)limit, 0};
    const uc_x86_msr efer = {0xC0000080, 0xD01};
    lib.uc_reg_write(c->uc, UC_X86_REG_GDTR, &gdtr);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR3, &c->word[CR3]);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR4, &c->word[CR4]);
    lib.uc_reg_write(c->uc, UC_X86_REG_MSR, &efer);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR0, &c->word[CR0]);
    for (int i = RAX; i <= R15; i++)
        lib.uc_reg_write(c->uc, register_ids[i], &c->word[i]);
    lib.uc_reg_write(c->uc, UC_X86_REG_RSP, &stack);
    const uint16_t x87_control = 0x37f, all_empty = 0xffff; /* as Xen has it: FCW_DEFAULT, MXCSR_DEFAULT */
    const uint32_t mxcsr = 0x1f80;
    lib.uc_reg_write(c->uc, UC_X86_REG_FPCW, &x87_control);
    lib.uc_reg_write(c->uc, UC_X86_REG_FPTAG, &all_empty);
    lib.uc_reg_write(c->uc, UC_X86_REG_MXCSR, &mxcsr);
    c->stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (c->stack == MAP_FAILED)
        return c->stack = NULL, PyErr_NoMemory();
    memcpy(c->seen, c->word, sizeof c->seen); /* load_registers() reads no control registers */
    c->started = c->alive = 1;
    c->root = c->word[CR3];
    c->n_translations = NOT_ALL;
    c->start_from = trampoline;
    c->empty_root = drain;
    Py_RETURN_NONE;
}

/* run(): to the next exit; what the engine asks on the way is answered by the callable that it was made with. */
static PyObject *core_run(Core *c, PyObject *unused)
{
    (void)unused;
    do {
        if (!c->alive) {
            PyErr_SetString(engine_error, "unicorn engine: run() before start() or after the end");
            return NULL;
        }
        if (c->exit_kind != EXIT_LEARN && out_of_patience(c))
            return PyLong_FromLong(EXIT_WAITED);
        switch_to_engine(c);
        if (c->exit_kind != EXIT_LEARN)
            return PyLong_FromLong(c->exit_kind);
        PyObject *nothing = PyObject_CallNoArgs(c->answer);
        if (!nothing)
            return NULL;
        Py_DECREF(nothing);
    } while (1);
}

static int is_open(const Core *c)
{
    if (!c->uc)
        PyErr_SetString(engine_error, "unicorn engine: it was closed");
    return c->uc != NULL;
}

/* flush_code(maddr, size): the caller wrote there; where code was run from it the translations are dropped. */
static PyObject *core_flush_code(Core *c, PyObject *args)
{
    unsigned long long at, size;
    if (!PyArg_ParseTuple(args, "KK", &at, &size))
        return NULL;
    for (uint64_t page = at >> 12; c->executed && size && page <= (at + size - 1) >> 12; page++)
        if (page < (uint64_t)c->ram.len >> 12 && c->executed[page])
            c->flush_code = 1;
    Py_RETURN_NONE;
}

/* read_register(number) -> 16 bytes; write_register(number, bytes): one of libunicorn's registers. */
static PyObject *core_read_register(Core *c, PyObject *number)
{
    unsigned char value[64] = {0}; /* no register of libunicorn's is longer */
    const long id = PyLong_AsLong(number);
    if (PyErr_Occurred() || !is_open(c))
        return NULL;
    uc_err e = lib.uc_reg_read(c->uc, (int)id, value);
    if (e != UC_ERR_OK)
        return fail("cannot read a register", e);
    return PyBytes_FromStringAndSize((const char *)value, 16);
}

static PyObject *core_write_register(Core *c, PyObject *args)
{
    int id;
    const char *bytes;
    Py_ssize_t size;
    unsigned char value[64] = {0};
    if (!PyArg_ParseTuple(args, "iy#", &id, &bytes, &size) || !is_open(c))
        return NULL;
    memcpy(value, bytes, (size_t)size < sizeof value ? (size_t)size : sizeof value);
    uc_err e = lib.uc_reg_write(c->uc, id, value);
    if (e != UC_ERR_OK)
        return fail("cannot write a register", e);
    Py_RETURN_NONE;
}

/* use_reflex(capsule): what may finish exits before the caller sees them; None: nothing. */
static PyObject *core_use_reflex(Core *c, PyObject *capsule)
{
    return take_reflex(capsule, &c->reflex, &c->reflex_owner);
}

/* load_ldt(base, limit): the LDT register. */
static PyObject *core_load_ldt(Core *c, PyObject *args)
{
    unsigned long long base, limit;
    if (!PyArg_ParseTuple(args, "KK", &base, &limit) || !is_open(c))
        return NULL;
    const uc_x86_mmr ldtr = {limit ? 8 : 0, base, (uint32_t)limit, 0x8200};
    lib.uc_reg_write(c->uc, UC_X86_REG_LDTR, &ldtr);
    Py_RETURN_NONE;
}

static PyObject *core_learn(Core *c, PyObject *args)
{
    unsigned long long slot, pc;
    unsigned int count;
    if (!PyArg_ParseTuple(args, "KKI", &slot, &pc, &count))
        return NULL;
    learnt_add(c, slot, pc, count);
    Py_RETURN_NONE;
}

static int core_getbuffer(Core *c, Py_buffer *view, int flags)
{
    (void)flags;
    return show_words((PyObject *)c, c->word, view);
}

static PyMethodDef core_methods[] = {
    {"start", (PyCFunction)core_start, METH_VARARGS, "start(trampoline, stack, gdt, limit, empty_root)"},
    {"run", (PyCFunction)core_run, METH_NOARGS, "run() -> exit kind"},
    {"stop_at", (PyCFunction)core_stop_at, METH_O, "stop_at(addresses in order)"},
    {"watch", (PyCFunction)core_watch, METH_O, "watch([(first, last, access, machine)])"},
    {"keep_branches", (PyCFunction)core_keep_branches, METH_O, "keep_branches(how many)"},
    {"branches", (PyCFunction)core_branches, METH_NOARGS, "branches() -> [(behind, to)]"},
    {"flush_code", (PyCFunction)core_flush_code, METH_VARARGS, "flush_code(maddr, size): that memory was written"},
    {"read_register", (PyCFunction)core_read_register, METH_O, "read_register(number) -> 16 bytes"},
    {"write_register", (PyCFunction)core_write_register, METH_VARARGS, "write_register(number, bytes)"},
    {"use_reflex", (PyCFunction)core_use_reflex, METH_O, "use_reflex(capsule)"},
    {"load_ldt", (PyCFunction)core_load_ldt, METH_VARARGS, "load_ldt(base, limit)"},
    {"close", (PyCFunction)core_close, METH_NOARGS, "close(): release all but the register file"},
    {"learn", (PyCFunction)core_learn, METH_VARARGS, "learn(slot, pc, count)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_new, core_new},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_methods, core_methods},
    {Py_bf_getbuffer, core_getbuffer},
    {0, NULL},
};

static PyType_Spec core_spec = {"stub.engine.unicorn._core.Core", sizeof(Core), 0, Py_TPFLAGS_DEFAULT, core_slots};

/* allow_inline(on): whether blocks that are translated from now on may count by themselves; for the tests. */
static PyObject *allow_inline(PyObject *self, PyObject *on)
{
    (void)self;
    if ((inline_allowed = PyObject_IsTrue(on)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"allow_inline", allow_inline, METH_O, "allow_inline(on)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_core", "The hot inner part of the Unicorn engine.", -1, functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *m = PyModule_Create(&module);
    PyObject *type = PyType_FromSpec(&core_spec);
    engine_error = PyErr_NewException("stub.engine.unicorn._core.CoreError", NULL, NULL);
    if (!m || !type || !engine_error || PyModule_AddObjectRef(m, "Core", type) < 0 ||
        PyModule_AddObjectRef(m, "CoreError", engine_error) < 0 || PyModule_AddIntConstant(m, "N_WORDS", N_WORDS) < 0)
        return NULL;
    return m;
}
