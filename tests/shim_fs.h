/* What tests/shim_fs.c writes into its log and tests/tool_powerloss.c reads: one record per call that changed
 * something, in the order in which the calls were made, whatever process or thread made them.  Files and
 * directories are told apart by inode, so that renaming one above them changes nothing. */
#ifndef CARACAL_TESTS_SHIM_FS_H
#define CARACAL_TESTS_SHIM_FS_H

#include <stdint.h>

enum shim_operation {
    SHIM_ROOT,     /* inode: the directory under which everything lies */
    SHIM_CREATE,   /* a file: directory, name, inode */
    SHIM_MKDIR,    /* directory, name, inode */
    SHIM_WRITE,    /* inode, offset, bytes; the data follow */
    SHIM_TRUNCATE, /* inode, offset: the new length */
    SHIM_SYNC,     /* inode: of a file or a directory */
    SHIM_RENAME,   /* directory, name to `to` / new_name */
    SHIM_UNLINK,   /* directory, name: a file */
    SHIM_RMDIR,    /* directory, name */
};

typedef struct shim_record {
    int64_t operation, inode, directory, to, offset, bytes;
    char name[40], new_name[40];
} shim_record;

#endif
