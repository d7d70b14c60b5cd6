# shellcheck shell=bash disable=SC2154  # WORK, OUT and private_apt are build's, UML and MODULES kernel.sh's
# Sourced by build: the guest's root, an initial ramdisk that stays the root. A fresh boot is a fresh machine.

ROOT=$WORK/root

# The words of ./packages that begin with a minus, without it (-), or the others (+).
listed() { sed 's/#.*//' "$GUEST/packages" | tr -s ' \n' '\n' | awk -v kind="$1" '!NF {next} /^-/ {if (kind == "-") print substr($0, 2); next} kind == "+"'; }

step_fetch_root() {
  local packages
  read_mirrors
  mapfile -t packages < <(listed +)
  private_apt clean
  private_apt -y --download-only install "${packages[@]}"
}

step_root() {
  local dir file name left_out drop=()
  left_out=$(listed - | xargs)
  for dir in usr/share/{doc,man,locale,info,bash-completion,initramfs-tools,zfs,lintian,i18n} usr/include usr/lib/udev/hwdb.d \
    lib/udev/hwdb.d 'usr/lib/systemd/system*' lib/systemd/system usr/lib/x86_64-linux-gnu/gconv; do
    drop+=(--exclude="./$dir")
  done
  rm -rf "$ROOT"
  mkdir -p "$ROOT"/usr/{bin,sbin,lib,lib64} "$ROOT"/{dev,etc,host,mnt,proc,root,run,sys,tmp,var/lib,var/log}
  for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$ROOT/$dir"; done
  for file in "$WORK"/apt/cache/archives/*.deb; do
    name=${file##*/} name=${name%%_*}
    [[ " $left_out " != *" $name "* ]] || continue
    # packages still disagree about /bin and /usr/bin: unpack through the links
    dpkg-deb --fsys-tarfile "$file" | tar -x --keep-directory-symlink -C "$ROOT" "${drop[@]}"
  done
  # large, and of no use to a test (xfs_scrub is what would need libicu)
  rm -rf "$ROOT"/usr/sbin/xfs_scrub* "$ROOT"/usr/share/{zsh,bug,perl5} \
    "$ROOT"/usr/lib/python3.11/{idlelib,ensurepip,lib2to3,pydoc_data,tkinter,unittest,test,config-*}
}

step_image() {
  local kernel tree=$WORK/tree
  kernel=$(kernel_version)
  rm -rf "$tree"
  cp -a "$ROOT" "$tree"
  add_modules "$kernel" "$tree"
  add_configuration "$tree"
  install -m 755 "$UML/usr/bin/linux.uml" "$OUT/linux.uml"
  (cd "$tree" && find . -print0 | LC_ALL=C sort -z | cpio --null -o -H newc --quiet -R 0:0) |
    zstd -q -f -10 -T0 -o "$OUT/initrd.new"
  mv "$OUT/initrd.new" "$OUT/initrd.zst"
  rm -rf "$tree"
}

add_modules() { # KERNEL TREE: the modules of ./modules and those they need; our own builds replace Debian's
  local all=$WORK/all-modules dir=lib/modules/$1 module file
  rm -rf "$all"
  mkdir -p "$all/$dir" "$2/$dir"
  cp -a "$UML/usr/lib/uml/modules/$1/." "$all/$dir"
  mkdir -p "$all/$dir/extra"
  for file in "$MODULES"/*/*.ko; do
    find "$all/$dir/kernel" -name "${file##*/}" -delete
    install -m 644 "$file" "$all/$dir/extra"
    strip -g "$all/$dir/extra/${file##*/}"
  done
  depmod -b "$all" "$1"
  sed 's/#.*//' "$GUEST/modules" | tr -s ' \n' '\n' | while read -r module; do
    [ -z "$module" ] || modprobe -d "$all" -S "$1" --show-depends --ignore-install "$module" || echo "no module $module" >&2
  done | awk '$1 == "insmod" {print $2}' | sort -u | while read -r file; do
    install -D -m 644 "$file" "$2${file#"$all"}"
  done
  cp "$all/$dir"/modules.{order,builtin,builtin.modinfo} "$2/$dir"
  depmod -b "$2" "$1"
  rm -rf "$all"
}

add_configuration() { # TREE
  local applet
  install -m 755 "$GUEST/init" "$1/init"
  "$1/usr/bin/busybox" --list | while read -r applet; do # busybox fills gaps only
    [ -e "$1/usr/bin/$applet" ] || [ -e "$1/usr/sbin/$applet" ] || ln -sf busybox "$1/usr/bin/$applet"
  done
  ln -sf bash "$1/usr/bin/sh"
  mkdir -p "$1"/etc/{ssh,zfs,lvm} "$1/root/.ssh"
  chmod 700 "$1/root" "$1/root/.ssh"
  # no keys in the image: zfs-up makes a set for each guest
  cat >"$1/etc/ssh/sshd_config" <<'CONF'
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 200
MaxSessions 200
PidFile /run/sshd.pid
SetEnv PATH=/usr/sbin:/usr/bin:/sbin:/bin
Subsystem sftp internal-sftp
CONF
  cat >"$1/etc/passwd" <<'CONF'
root:x:0:0:root:/root:/bin/bash
sshd:x:100:65534::/run/sshd:/bin/false
nobody:x:65534:65534::/:/bin/false
CONF
  printf '%s:*:19000::::::\n' root sshd >"$1/etc/shadow"
  # udev's rules name these groups
  printf '%s:\n' root:x:0 tty:x:5 disk:x:6 lp:x:7 kmem:x:15 dialout:x:20 cdrom:x:24 tape:x:26 audio:x:29 video:x:44 \
    kvm:x:104 render:x:105 input:x:106 sgx:x:107 nogroup:x:65534 >"$1/etc/group"
  printf '%s: files\n' passwd group shadow hosts >"$1/etc/nsswitch.conf"
  echo 127.0.0.1 localhost >"$1/etc/hosts"
  # lvm touches 8 MiB before each activation, page by page (1.5 s here); dmeventd does not run
  echo 'activation { reserved_memory = 0 reserved_stack = 0 monitoring = 0 }' >"$1/etc/lvm/lvmlocal.conf"
  printf '\1\2\3\4' >"$1/etc/hostid"
  echo 0123456789abcdef0123456789abcdef >"$1/etc/machine-id"
  ln -sfn /proc/self/mounts "$1/etc/mtab"
  rm -rf "$1/var/run"
  ln -s /run "$1/var/run"
}
