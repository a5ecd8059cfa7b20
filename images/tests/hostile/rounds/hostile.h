/* What the hostile guest's files share. rounds.c tells what it does. */
#pragma once
#include "kit.h"

/* -- chance: one number gives all that comes */

void seed_chance(u64 seed);
u64 any(void);
u64 stray(void); /* any, but where words are short none that could be an address of the kernel's by chance */
word below(word limit);
static inline int one_in(word n)
{
    return below(n) == 0;
}
#define PICK(table) ((table)[below(sizeof(table) / sizeof *(table))])

/* -- what it owns (pool.c)

   The pool's pages are for anything: data, tables, descriptors, given away. Each has a level that it most often serves
   as, so that trees come about. What the guest itself runs on is vital: no call may take it, or only such as must be
   refused. In the address space, the pool has a hole before and behind it, and so has the arena. */

enum { POOL = 48, SPARES = 16, ARENA_PAGES = 8, AREAS = ROOT_AREAS - 1, OWN_DOMAIN = 1 };
#define USER_PIECE (USER_CODE + 0x80000) /* where code_page is for user code */
void write_grant(word number, u16 flags, u16 domid, word frame);
/* A grant that was mapped, as Xen said. */
struct mapping {
    word address;
    u32 handle;
};
enum { MAPPINGS = 8 };
extern struct mapping mappings[MAPPINGS];
extern u8 *pool, *arena, *arena_end, *scratch, *code_page, *info_page;
extern word pool_mfn[POOL], root_home, root_clone, info_mfn, window, *window_page;
void make_pool(void);
void tidy(void);             /* give the pool's pages back what was taken from them */
int habit(word page);        /* the level that a pool page most often serves as; 0: data */
int habit_page(int level);

/* What a call is about: an entry of a level, which must be refused if it is vital. */
struct target {
    int level, vital;
};
extern struct target target;
u64 entry_target(void);      /* the machine address of one; sets `target` */
word address_target(void);   /* the address that an L1 entry maps; sets `target` */
u64 entry_value(void);       /* a value for `target` */
u64 *table_target(void);     /* where an entry can be seen; sets `target` */
word any_frame(void);        /* none that is vital */
word refused_root(void);     /* a frame that is no L4 table, whatever else */
word pool_address(void);     /* in the pool or in the areas that its tables map */
word unreadable(void);
word table_pointer(void);    /* a table of the kernel's, which Xen may read and not write */
word pointer(void);          /* to read or write: good, and bad in all ways */

/* -- what it does, each in one round */

struct call {
    word number, arguments[5];
};
void make_call(struct call *call, int nested);
void round_of_calls(word round);
void round_of_stores(word round);
void round_of_code(word round);
void round_of_user_code(word round);
void round_of_irets(word round);
void round_of_roots(word round);
void round_of_descriptors(word round);
void round_of_long_lists(word round);
u64 some_descriptor(void);

struct totals {
    word calls, refused, stores, pieces, excursions, irets, traps, events;
};
extern struct totals totals;
void last_act(word which) __attribute__((noreturn));
