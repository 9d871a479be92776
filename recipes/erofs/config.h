/* SPDX-FileCopyrightText: The sev-artifacts authors */
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What erofs-utils' configure would find in the sandbox, as far as mkfs.erofs asks for it. Left out on purpose:
 * compression libraries, threads (only compression uses them), libuuid (-U is always given), SELinux, and whatever
 * talks to a network. So no autotools are needed, and no step depends on what a configure script happens to find.
 */
/* From the VERSION file, by build.sh: PACKAGE_VERSION */
#define EROFS_MAX_BLOCK_SIZE 4096

#define HAVE_ENDIAN_H 1
#define HAVE_LINUX_FALLOC_H 1
#define HAVE_LINUX_FS_H 1
#define HAVE_LINUX_TYPES_H 1
#define HAVE_LINUX_XATTR_H 1
#define HAVE_SYS_IOCTL_H 1
#define HAVE_SYS_RANDOM_H 1
#define HAVE_SYS_RESOURCE_H 1
#define HAVE_SYS_SENDFILE_H 1
#define HAVE_SYS_STATFS_H 1
#define HAVE_SYS_SYSMACROS_H 1
#define HAVE_SYS_XATTR_H 1
#define HAVE_UNISTD_H 1

#define HAVE_COPY_FILE_RANGE 1
#define HAVE_FALLOCATE 1
#define HAVE_FSTATFS 1
#define HAVE_GETRANDOM 1
#define HAVE_GETRLIMIT 1
#define HAVE_LGETXATTR 1
#define HAVE_LLISTXATTR 1
#define HAVE_LSETXATTR 1
#define HAVE_MEMRCHR 1
#define HAVE_POSIX_FADVISE 1
#define HAVE_PREAD64 1
#define HAVE_PWRITE64 1
#define HAVE_PWRITEV 1
#define HAVE_SENDFILE 1
#define HAVE_STRUCT_STAT_ST_ATIM 1
#define HAVE_SYSCONF 1
