/* The root that user code runs on: one of its own. */
#include "kit.h"
#include "parts.h"

u64 *make_user_root(void)
{
    u64 *root = page();
    root[entry_index(USER_CODE, LEVELS)] = entry(USER_CODE, LEVELS);
    MUST(read_only(root));
    MUST(mmuext(PIN_L4_TABLE, mfn_of(root), 0));
    MUST(mmuext(NEW_USER_BASEPTR, mfn_of(root), 0));
    return root;
}
