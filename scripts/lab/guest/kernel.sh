# shellcheck shell=bash disable=SC2154  # WORK and private_apt are build's
# Sourced by build: the guest's kernel and modules.
# The kernel and most modules are Debian's own user-mode-linux. The source is needed only to build OpenZFS and ceph.ko against it.

UML=$WORK/uml LINUX=$WORK/linux DEBS=$WORK/kernel-debs ZFS=$WORK/zfs MODULES=$WORK/modules

deb() { # PACKAGE: its file among those downloaded
  local files=("$DEBS/$1"_*.deb)
  [ -e "${files[0]}" ] || { echo "no package $1 in $DEBS" >&2; return 1; }
  echo "${files[-1]}"
}
kernel_version() { ls "$UML/usr/lib/uml/modules"; }

step_fetch_kernel() {
  local kernel source
  read_mirrors
  rm -rf "$DEBS" "$UML"
  mkdir -p "$DEBS"
  (cd "$DEBS" && private_apt download user-mode-linux zfs-dkms)
  dpkg-deb -x "$(deb user-mode-linux)" "$UML"
  # No headers package goes with it: take the source of the same upstream version, whatever its Debian revision.
  kernel=$(kernel_version)
  source=$(apt-cache -c "$WORK/apt.conf" madison "linux-source-${kernel%.*}" |
    awk -v want="$kernel-" 'index($3, want) == 1 && !got {print $3; got = 1}')
  [ -n "$source" ] || { echo "the mirror has no source of kernel $kernel (a Debian point release replaces both)"; return 1; }
  (cd "$DEBS" && private_apt download "linux-source-${kernel%.*}=$source")
}

step_kernel() {
  local kernel dir unneeded=()
  kernel=$(kernel_version)
  # Kbuild wants every Kconfig and Makefile, but not the code of most drivers; leaving it out halves the unpacking
  for dir in drivers/gpu drivers/media drivers/net/ethernet drivers/net/wireless sound Documentation tools/testing \
    arch/arm arch/arm64 arch/mips arch/powerpc; do
    unneeded+=(--exclude="*/$dir/*.[chS]" --exclude="*/$dir/*.rst" --exclude="*/$dir/*.dts*")
  done
  rm -rf "$LINUX"
  mkdir -p "$LINUX"
  dpkg-deb --fsys-tarfile "$(deb "linux-source-${kernel%.*}")" | tar -xO "./usr/src/linux-source-${kernel%.*}.tar.xz" |
    xz -dcT0 | tar -x -C "$LINUX" --strip-components=1 "${unneeded[@]}"
  zcat "$UML/usr/share/doc/user-mode-linux/config.gz" >"$LINUX/.config"
  make -C "$LINUX" ARCH=um olddefconfig
  make -C "$LINUX" ARCH=um -j"$(nproc)" modules_prepare
  # without MODVERSIONS and signatures this string alone decides whether a module fits
  [ "$(cat "$LINUX/include/config/kernel.release")" = "$kernel" ]
  /usr/bin/python3 "$GUEST/symvers.py" "$UML/usr/bin/linux.uml" >"$LINUX/Module.symvers"
}

step_zfs() {
  rm -rf "$ZFS" "$ZFS.deb" "$MODULES/zfs"
  mkdir -p "$MODULES/zfs"
  dpkg-deb -x "$(deb zfs-dkms)" "$ZFS.deb"
  mv "$ZFS.deb"/usr/src/zfs-* "$ZFS"
  rm -rf "$ZFS.deb"
  export ARCH=um
  (cd "$ZFS" && ./configure --prefix=/usr --with-config=kernel --with-linux="$LINUX" --with-linux-obj="$LINUX")
  zfs_for_uml
  make -C "$ZFS/module" -j"$(nproc)"
  find "$ZFS/module" -name '*.ko' -exec cp -t "$MODULES/zfs" {} +
}

# Four places where OpenZFS 2.1 takes "x86" to mean a kernel on bare metal. Each edit is checked: another version may have moved it.
zfs_for_uml() {
  local simd=$ZFS/include/os/linux/kernel/linux/simd.h icp=$ZFS/module/icp/Makefile
  # UML has no kernel_fpu_begin(), so no SIMD: the header's generic branch, and no claim that the assembler knows the instructions
  sed -i 's/^#if defined(__x86)$/#if defined(__x86) \&\& !defined(CONFIG_UML)/' "$simd"
  grep -q 'defined(CONFIG_UML)' "$simd"
  sed -i -E 's/^#define HAVE_(SSE|SSSE|AVX|AES|PCLMULQDQ|MOVBE|BMI|XSAVE)[A-Z0-9_]* 1$//' "$ZFS/zfs_config.h"
  # this AES object is the plain one and wanted; UML sets X86_64 but not X86
  sed -i 's/CONFIG_X86) += algs\/aes\/aes_impl_x86-64.o/CONFIG_X86_64) += algs\/aes\/aes_impl_x86-64.o/' "$icp"
  grep -q 'CONFIG_X86_64) += algs/aes/aes_impl_x86-64.o' "$icp"
  # UML compiles all C with setjmp renamed; Lua's own assembler version must follow
  echo 'asflags-y += -Dsetjmp=kernel_setjmp -Dlongjmp=kernel_longjmp' >>"$ZFS/module/lua/Makefile"
}

# ceph.ko again with POSIX ACLs: Debian's UML configuration leaves them out, its normal kernels have them.
step_ceph() {
  rm -rf "$WORK/ceph" "$MODULES/ceph"
  mkdir -p "$MODULES/ceph"
  cp -r "$LINUX/fs/ceph" "$WORK/ceph"
  # warnings only: libceph's symbols are not in our Module.symvers, the loader will find them
  make -C "$LINUX" ARCH=um M="$WORK/ceph" -j"$(nproc)" KBUILD_MODPOST_WARN=1 \
    CONFIG_CEPH_FS=m CONFIG_CEPH_FS_POSIX_ACL=y KCFLAGS=-DCONFIG_CEPH_FS_POSIX_ACL=1 modules
  cp "$WORK/ceph/ceph.ko" "$MODULES/ceph"
}
