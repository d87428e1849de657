/* Hyperscan's own interface behind three functions, so that its time has nothing of Python in it. */

#include <hs/hs.h>
#include <stdint.h>
#include <stdlib.h>

struct scanner {
    hs_database_t *database;
    hs_scratch_t *scratch;
};

struct found {
    int32_t text;
    int64_t count, room;
    int32_t *pairs;
};

static int hit(unsigned id, unsigned long long from, unsigned long long to, unsigned flags, void *context) {
    struct found *found = context;
    (void)from, (void)to, (void)flags;
    if (found->count < found->room) {
        found->pairs[2 * found->count] = found->text;
        found->pairs[2 * found->count + 1] = (int32_t)id;
    }
    found->count++;
    return 0;
}

struct scanner *scanner_new(const char *const *patterns, unsigned count, int utf8) {
    struct scanner *scanner = calloc(1, sizeof *scanner);
    unsigned *flags = malloc(count * sizeof *flags), *ids = malloc(count * sizeof *ids);
    hs_compile_error_t *error = NULL;
    for (unsigned i = 0; i < count; i++) {
        flags[i] = HS_FLAG_CASELESS | HS_FLAG_SINGLEMATCH | (utf8 ? HS_FLAG_UTF8 : 0);
        ids[i] = i;
    }
    int failed = hs_compile_multi(patterns, flags, ids, count, HS_MODE_BLOCK, NULL, &scanner->database, &error) ||
                 hs_alloc_scratch(scanner->database, &scanner->scratch);
    free(flags);
    free(ids);
    if (failed) {
        free(scanner);
        return NULL;
    }
    return scanner;
}

/* The library's own line on version and instruction set; for the caller to keep. */
char *scanner_info(const struct scanner *scanner) {
    char *info = NULL;
    hs_database_info(scanner->database, &info);
    return info;
}

/* Scan texts that lie one behind the other; return how many (text, rule) pairs there are, -1 if it fails. */
int64_t scanner_scan(const struct scanner *scanner, const char *texts, const int64_t *offsets, int32_t count,
                     int32_t *pairs, int64_t room) {
    struct found found = {0, 0, room, pairs};
    for (int32_t i = 0; i < count; i++) {
        found.text = i;
        if (hs_scan(scanner->database, texts + offsets[i], (unsigned)(offsets[i + 1] - offsets[i]), 0,
                    scanner->scratch, hit, &found))
            return -1;
    }
    return found.count;
}
