"""The vectors of trees: tree-stream(5). Part of generate.py."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import generate
from generate import FROM, MIB, NIL, TO, Stream, blake3, derive, entry as table_entry, hexlines, u16, u32, u64
from reader import GONE, ENTRY, LINK, ROOTS, Thing, listing

generate.NAMES.update({GONE: "GONE", ENTRY: "ENTRY", LINK: "LINK", ROOTS: "ROOTS"})
TREE, LIST = 1, 16
SOURCE = derive("tree")
FILE, DIR, SYMLINK, FIFO, SOCKET, CHAR, BLOCK = range(1, 8)
NEW, KEPT, TAKEN = range(3)
VECTORS, TREES = {}, {}
A, B = b"A" * 4096, b"B" * 4096
WHEN = 1763800000


def path(text):
    """`a/b`, or bytes of one name each in a list."""
    names = text if isinstance(text, list) else [n.encode() for n in text.split("/") if n]
    return b"".join(bytes([len(n)]) + n for n in names)


def split(p):
    names = []
    while p:
        names.append(p[1:1 + p[0]])
        p = p[1 + p[0]:]
    return tuple(names)


class Tree(Stream):
    """A tree stream; what it says is carried out on `tree` as it is built, unless it is bent."""

    def __init__(self, base=None, minor=1, bent=False):
        super().__init__(minor=minor)
        self.tree, self.bent, self.taken, self.thing = dict(base or {}), bent, {}, None

    def begin(self, frm=NIL, to=TO, incompatible=TREE, kind=2, grain=4096, old=0, new=0, table=None, **kw):
        table = table_entry(0, 0, b"tree (a directory tree)") if table is None else table
        self.header(SOURCE, frm, to, (b"home", b"mon" if frm != NIL else b"", b"tue"), incompatible, table=table, **kw)
        return self.object(new, old, grain, kind)

    def roots(self, old=b"/mnt/.snap/mon", new=b"/mnt/.snap/tue", raw=None):
        return self.frame(ROOTS, u32(len(old)) + u32(0) + old + new if raw is None else raw)

    def gone(self, p, number=0, raw=None):
        p = path(p)
        if not self.bent:
            names = split(p)
            below = {at: self.tree.pop(at) for at in list(self.tree) if at[:len(names)] == names}
            assert below
            if number:
                self.taken[number] = {at[len(names):]: thing for at, thing in below.items()}
        return self.frame(GONE, u64(number) + p if raw is None else raw)

    def entry(self, p, kind=FILE, origin=NEW, mode=0o644, uid=1000, gid=1000, sec=WHEN, ns=0, size=0, old=0, number=0, major=0, minor=0,
              target=b"", xattrs=(), plen=None, tlen=None, tail=b"", cut=None):
        p = path(p)
        body = struct.pack("<BBHIIIqQQQIIII", kind, origin, mode, uid, gid, ns, sec, size, old, number, major, minor,
                           len(p) if plen is None else plen, len(target) if tlen is None else tlen)
        body += p + target + b"".join(u16(len(a)) + u32(len(b)) + a + b for a, b in xattrs) + tail
        if not self.bent:
            names = split(p)
            if origin == NEW:
                assert names not in self.tree
                self.tree[names] = Thing(kind)
            elif origin == TAKEN:
                self.tree.update({names + at: thing for at, thing in self.taken.pop(number).items()})
            self.thing = self.tree[names] = copied(self.tree, names)
            self.thing.what = {SYMLINK: target, CHAR: (major, minor), BLOCK: (major, minor)}.get(kind)
            self.thing.attributes = (mode, uid, gid, sec, ns, list(xattrs))
            self.thing.content = bytearray(self.thing.content[:size].ljust(size, b"\0"))
        return self.frame(ENTRY, body[:cut])

    def root(self, origin=NEW, **kw):
        return self.entry("", DIR, origin, 0o755, **kw)

    def dir(self, p, origin=NEW, mode=0o755, **kw):
        return self.entry(p, DIR, origin, mode, **kw)

    def named(self, p, to, raw=None, reserved=0, plen=None):
        p, to = path(p), path(to)
        if not self.bent:
            self.tree[split(p)] = self.tree[split(to)]
        return self.frame(LINK, u32(len(p) if plen is None else plen) + u32(reserved) + p + to if raw is None else raw)

    def data(self, offset, payload, **kw):
        if not self.bent:
            self.thing.content[offset:offset + len(payload)] = payload
        return super().data(offset, payload, **kw)

    def zero(self, offset, length, *args, **kw):
        if not self.bent:
            self.thing.content[offset:offset + length] = bytes(length)
        return super().zero(offset, length, *args, **kw)


def copied(tree, names):
    """The thing at this path, its own at all of its paths: bases are shared between vectors."""
    old = tree[names]
    new = Thing(old.kind)
    new.__dict__.update(old.__dict__)
    for at, thing in tree.items():
        if thing is old:
            tree[at] = new
    return new


def vector(expect, name, comment, stream, base=None, unbuilt=False):
    name = f"tree_{name}"
    assert name not in VECTORS, name
    lines = [f"expect: {expect}", f"comment: {comment}"]
    if expect == "ok":
        lines += [f"base: {base}.vec" if base else "base: none", "result: " + ("unbuilt" if unbuilt else blake3(listing(stream.tree)).hexdigest())]
        TREES[name] = stream.tree
    lines.append("---")
    for label, body, *short in stream.items:
        lines.append(f"# {label}")
        lines.extend(short or hexlines(body))
    VECTORS[name] = "\n".join(lines) + "\n"


def whole(**kw):
    return Tree(**kw).begin().root()


def bent(**kw):
    return Tree(bent=True).begin(**kw)


def small():
    """A bit of everything."""
    return (whole().dir("d").entry("d/f", size=10000, xattrs=[(b"user.a", b"1"), (b"user.b", b"")]).data(0, A).data(8192, b"z" * 1808)
            .dir("d/g", mode=0o1777).entry("d/g/fifo", FIFO).entry("d/h", size=5, mode=0o4755, uid=0).data(0, b"hello")
            .dir("e", mode=0o555).named("e/link", "d/f").entry("null", CHAR, major=1, minor=3, uid=0, gid=0, mode=0o666)
            .entry("sda", BLOCK, major=8, uid=0, mode=0o660).entry("socket", SOCKET)
            .entry("symlink", SYMLINK, target=b"/etc/passwd", mode=0o777, sec=-1, ns=999999999).end())


SMALL = "tree_ok_small"


def after_small(**kw):
    return Tree(TREES[SMALL], **kw).begin(FROM)


def good():
    ok = lambda *args, **kw: vector("ok", *args, **kw)
    ok("ok_small", "every type, a hole, a link, attributes", small())
    ok("ok_empty", "a root and nothing in it", whole().end())
    ok("ok_names_of_any_bytes", "newline, dots, a backslash, no UTF-8, the longest name",
       whole().entry([b"\n"]).entry([b"..."]).entry([b"\\x"]).entry([b"a" * 255]).entry([b"\xff\xfe"]).end())
    deepest = Tree(bent=True).begin(FROM).entry([b"d"] * 1024, origin=KEPT)
    ok("ok_deepest", "a path of 1024 names", deepest.end(), unbuilt=True)
    longest = Tree(bent=True).begin(FROM).entry([b"n" * 255] * 256, origin=KEPT)
    ok("ok_longest_path", "65536 bytes", longest.end(), unbuilt=True)
    ok("ok_order_is_by_names", "a name with a byte below the slash comes behind what is in the shorter one",
       whole().dir("a").entry("a/b").entry([b"a!"]).entry("b").end())
    ok("ok_largest_values", "mode, ids, time, link target, attribute",
       whole().entry("a", mode=0o7777, uid=2 ** 32 - 1, gid=2 ** 32 - 1, sec=2 ** 63 - 1, ns=10 ** 9 - 1, xattrs=[(b"u" * 255, b"v" * 65536)])
       .entry("b", SYMLINK, target=b"t" * 4095, sec=-2 ** 63).entry("c", BLOCK, major=2 ** 32 - 1, minor=2 ** 32 - 1).end())
    ok("ok_acl", "an access control list is an attribute", whole().entry("a", xattrs=[(b"system.posix_acl_access", bytes.fromhex("02000000"))]).end())
    ok("ok_whole_with_zero", "not canonical, but allowed", whole().entry("a", size=8192).zero(0, 4096, 1).data(4096, B).end())
    ok("ok_skippable", "between an entry and its content, and before the root",
       Tree().begin().frame(0x8050, b"skip").root().entry("a", size=4096).frame(0xC060, b"me").data(0, A).end())
    ok("ok_checkpoint", "behind 65536 frames: OBJECT, two entries, and extents of one byte",
       many(Tree()).checkpoint().entry("b").end())
    ok("ok_to_only_in_end", "a state that only the content tells", Tree().begin(to=NIL).root().end(to=TO))

    ok("ok_nothing_changed", "an increment without an entry", after_small().end(), base=SMALL)
    ok("ok_attributes_of_kept", "mode and time of a file, and nothing else",
       after_small().entry("d/f", origin=KEPT, size=10000, old=10000, mode=0o600, sec=5).end(), base=SMALL)
    ok("ok_block_of_kept", "one block of a file, seen at both of its names",
       after_small().entry("d/f", origin=KEPT, size=10000, old=10000).data(4096, B).end(), base=SMALL)
    ok("ok_grown_and_cut", "sizes change; what is new reads as zero",
       after_small().entry("d/f", origin=KEPT, size=20000, old=10000).entry("d/h", origin=KEPT, size=2, old=5).end(), base=SMALL)
    ok("ok_gone", "a file, and a directory with what is in it",
       after_small().gone("sda").gone("d/g").root(KEPT).dir("d", KEPT).end(), base=SMALL)
    ok("ok_gone_and_new", "another file under the same name",
       after_small().gone("d/h").dir("d", KEPT).entry("d/h", size=3).data(0, b"new").end(), base=SMALL)
    ok("ok_other_type", "a file becomes a directory", after_small().gone("d/h").dir("d", KEPT).dir("d/h").entry("d/h/x").end(), base=SMALL)
    ok("ok_renamed", "a file into another directory",
       after_small().gone("d/h", 1).dir("d", KEPT).dir("e", KEPT, 0o555).entry("e/i", origin=TAKEN, number=1, size=5, old=5).end(), base=SMALL)
    ok("ok_renamed_directory", "what is in it comes along, and is changed there",
       after_small().gone("d", 1).root(KEPT).dir("z", TAKEN, number=1).entry("z/f", origin=KEPT, size=10000, old=10000).data(0, B).end(), base=SMALL)
    ok("ok_swapped", "two names change places",
       after_small().gone("socket", 1).gone("null", 2).root(KEPT).entry("null", SOCKET, TAKEN, number=1)
       .entry("socket", CHAR, TAKEN, number=2, major=1, minor=3).end(), base=SMALL)
    ok("ok_into_itself", "a directory goes down into one that was in it",
       after_small().gone("d/g", 1).gone("d", 2).root(KEPT).dir("d", TAKEN, number=1).dir("d/old", TAKEN, number=2).end(), base=SMALL)
    ok("ok_taken_out_of_gone", "the directory goes, one thing of it stays",
       after_small().gone("d/h", 1).gone("d").root(KEPT).entry("h", origin=TAKEN, number=1, size=5, old=5).end(), base=SMALL)
    ok("ok_new_link", "to what is kept, before it in order", after_small().root(KEPT).named("a", "d/h").end(), base=SMALL)
    ok("ok_link_to_new", "to what was said before", after_small().root(KEPT).entry("a", size=1).data(0, b"x").named("b", "a").end(), base=SMALL)
    ok("ok_link_broken", "one of two names is another file now",
       after_small().gone("e/link").dir("e", KEPT, 0o555).entry("e/link", size=4).data(0, b"mine").end(), base=SMALL)
    ok("ok_kept_far_down", "no directory above it was said", after_small().entry("d/g/fifo", FIFO, KEPT, mode=0o600).end(), base=SMALL)
    ok("ok_list", "entries without content",
       Tree(TREES[SMALL]).begin(FROM, incompatible=TREE | LIST, table=b"").roots().gone("null").root(KEPT).dir("d", KEPT).end(), base=SMALL)


def many(stream):
    """Frames up to where a CHECKPOINT is due."""
    return stream.begin(grain=1).root().entry("a", size=2 * 65533).zeros(65533, 0, 1, 2)


def refused():
    no = vector
    for what, name in (("dot", b"."), ("dot_dot", b".."), ("slash", b"a/b"), ("absolute", b"/"), ("nul", b"a\0"), ("empty", b"")):
        no("path", f"path_{what}_in_entry", f"the name {name!r}", bent().root().entry([name]).end())
        no("path", f"path_{what}_in_gone", f"the name {name!r}", bent(frm=FROM).gone([name]).end())
        no("path", f"path_{what}_in_link", f"the name {name!r}", bent().root().entry("a").named([name], "a").end())
        no("path", f"path_{what}_in_link_target", f"the name {name!r}", bent(frm=FROM).root(KEPT).named("b", [name]).end())
        no("path", f"path_{what}_deeper", f"the name {name!r} behind a good one", bent().root().dir("a").entry([b"a", name]).end())
    no("path", "path_up_and_out", "two steps up", bent().root().dir("a").entry([b"a", b"..", b"..", b"etc"]).end())
    no("path", "path_too_deep", "1025 names", bent(frm=FROM).entry([b"d"] * 1025, origin=KEPT).end())
    no("path", "path_too_long", "65538 bytes", bent(frm=FROM).entry([b"n" * 255] * 256 + [b"x"], origin=KEPT).end())
    no("path", "path_cut", "a name that is shorter than its length", bent().root().entry([b"a"], plen=1, cut=65).end())
    no("path", "path_of_gone_cut", "the same", bent(frm=FROM).gone("", raw=u64(0) + b"\x05abc").end())
    no("path", "path_root_gone", "the root cannot go", bent(frm=FROM).gone("").end())
    no("path", "path_root_link", "the root is no name of anything", bent().root().entry("a").named("", "a").end())
    no("path", "path_link_to_root", "no directory has two names", bent().root().named("a", "").end())
    no("path", "path_link_to_itself", "nothing to link to", bent(frm=FROM).root(KEPT).named("a", "a").end())

    no("path-order", "path_order_twice", "one path twice", bent().root().entry("a").entry("a").end())
    no("path-order", "path_order_back", "b before a", bent().root().entry("b").entry("a").end())
    no("path-order", "path_order_root_again", "the root is the first", bent().root().entry("a").root().end())
    no("path-order", "path_order_link", "a link behind what comes after it", bent().root().entry("b").named("a", "b").end())
    no("path-order", "path_order_child_after", "in a directory that was left", bent().root().dir("a").entry("b").entry("a/c").end())
    no("path-order", "path_order_below_slash", "a! comes behind a/b", bent().root().dir("a").entry([b"a!"]).entry("a/b").end())
    no("path-order", "path_order_gone_ascends", "what is gone descends", bent(frm=FROM).gone("a").gone("b").root(KEPT).end())
    no("path-order", "path_order_gone_twice", "gone once", bent(frm=FROM).gone("a").gone("a").root(KEPT).end())
    no("path-order", "path_order_gone_parent_first", "a directory before what was taken out of it", bent(frm=FROM).gone("a").gone("a/b", 1).root(KEPT).end())

    no("parent", "parent_no_root", "a whole tree begins with its root", bent().entry("a").end())
    no("parent", "parent_nothing", "a whole tree has a root", bent().end())
    no("parent", "parent_unsaid", "a directory that was not said", bent().root().entry("a/b").end())
    no("parent", "parent_is_a_file", "a file holds nothing", bent().root().entry("a").entry("a/b").end())
    no("parent", "parent_is_a_symlink", "the old trick", bent().root().entry("a", SYMLINK, target=b"/etc").entry("a/passwd").end())
    no("parent", "parent_is_a_symlink_kept", "the same in an increment", bent(frm=FROM).root(KEPT).entry("a", SYMLINK, KEPT, target=b"/etc").entry("a/passwd", origin=KEPT).end())
    no("parent", "parent_is_a_symlink_far_up", "two below it", bent(frm=FROM).root(KEPT).entry("a", SYMLINK, KEPT, target=b"/").entry("a/etc/passwd", origin=KEPT).end())
    no("parent", "parent_is_a_link", "a link is no directory", bent(frm=FROM).root(KEPT).entry("a").named("b", "a").entry("b/c", origin=KEPT).end())
    no("parent", "parent_unsaid_in_increment", "new, in what was not said", bent(frm=FROM).root(KEPT).entry("a/b").end())
    no("parent", "parent_root_unsaid", "new in the root, which was not said", bent(frm=FROM).entry("a").end())
    no("parent", "parent_link_unsaid", "a link in what was not said", bent(frm=FROM).root(KEPT).named("a/b", "c").end())
    no("parent", "parent_taken_unsaid", "taken to what was not said", bent(frm=FROM).gone("c", 1).root(KEPT).entry("a/b", origin=TAKEN, number=1).end())
    no("parent", "parent_kept_in_new", "a new directory is empty", bent(frm=FROM).root(KEPT).dir("a").entry("a/b", origin=KEPT).end())
    no("parent", "parent_kept_below_new", "the same, further down", bent(frm=FROM).root(KEPT).dir("a").entry("a/b/c", origin=KEPT).end())
    no("parent", "parent_link_forward", "to what comes later in a whole stream", bent().root().named("a", "b").entry("b").end())

    no("order", "order_gone_in_whole", "nothing was there", bent().gone("a").root().end())
    no("order", "order_gone_behind_entry", "what is gone is said first", bent(frm=FROM).root(KEPT).gone("a").end())
    no("order", "order_data_without_entry", "of which file", bent(frm=FROM).data(0, A).end())
    no("order", "order_data_behind_directory", "a directory has none", bent().root().data(0, A).end())
    no("order", "order_data_behind_symlink", "a symbolic link has none", bent().root().entry("a", SYMLINK, target=b"x").data(0, A).end())
    no("order", "order_data_behind_link", "the entry was left", bent().root().entry("a", size=4096).named("b", "a").data(0, A).end())
    no("order", "order_zero_behind_gone", "nothing is there", bent(frm=FROM).gone("a").zero(0, 4096).end())
    no("order", "order_data_in_list", "a list has no content", bent(incompatible=TREE | LIST, table=b"").roots(b"").root().entry("a", size=4096).data(0, A).end())
    listed = lambda frm=FROM: bent(frm=frm, incompatible=TREE | LIST, table=b"")
    no("order", "order_list_without_roots", "where are its trees", listed().root(KEPT).end())
    no("order", "order_list_of_nothing_without_roots", "where are its trees", listed().end())
    no("order", "order_roots_behind_gone", "they are first", listed().gone("a").roots().root(KEPT).end())
    no("order", "order_roots_twice", "once", listed().roots().roots().root(KEPT).end())
    no("order", "order_roots_in_no_list", "a stream has its content with it", bent(frm=FROM).roots().root(KEPT).end())
    no("value", "value_roots_whole", "a whole list has no tree before", listed(NIL).roots().root().end())
    no("value", "value_roots_increment", "an increment has one", listed().roots(b"").root(KEPT).end())
    no("value", "value_roots_nowhere", "a tree is somewhere", listed().roots(b"/a", b"").root(KEPT).end())
    no("value", "value_roots_nul", "ends before it ends", listed().roots(b"/a", b"/b\0c").root(KEPT).end())
    no("value", "value_roots_too_long", "4097 bytes", listed().roots(b"/" * 4097).root(KEPT).end())
    no("length", "length_roots", "7 bytes", listed().roots(raw=b"1234567").end())
    no("length", "length_roots_path", "a path beyond the payload", listed().roots(raw=u32(99) + u32(0) + b"/a/b").end())
    no("reserved", "reserved_roots", "the field behind the length", listed().roots(raw=u32(2) + u32(1) + b"/a/b").end())

    no("totals", "totals_taken_and_lost", "what was taken comes back", bent(frm=FROM).gone("a", 1).root(KEPT).end())
    no("totals", "totals_one_of_two_lost", "both of them", bent(frm=FROM).gone("b", 1).gone("a", 2).root(KEPT).entry("c", origin=TAKEN, number=2).end())

    value = lambda name, comment, stream: no("value", f"value_{name}", comment, stream)
    value("number_not_next", "the first is 1", bent(frm=FROM).gone("a", 2).root(KEPT).end())
    value("number_again", "each once", bent(frm=FROM).gone("b", 1).gone("a", 1).root(KEPT).end())
    value("number_back_twice", "each once", bent(frm=FROM).gone("a", 1).root(KEPT).entry("b", origin=TAKEN, number=1).entry("c", origin=TAKEN, number=1).end())
    value("number_never_given", "nothing was taken", bent(frm=FROM).root(KEPT).entry("b", origin=TAKEN, number=1).end())
    value("number_huge", "no memory is taken for it", bent(frm=FROM).gone("a", 1).root(KEPT).entry("b", origin=TAKEN, number=2 ** 64 - 1).end())
    value("taken_without_number", "which one", bent(frm=FROM).root(KEPT).entry("b", origin=TAKEN).end())
    value("kept_with_number", "it was not taken", bent(frm=FROM).root(KEPT).entry("b", origin=KEPT, number=1).end())
    value("origin", "there are three", bent(frm=FROM).root(KEPT).entry("b", origin=3).end())
    value("kept_in_whole", "all is new", bent().root().entry("a", origin=KEPT).end())
    value("taken_in_whole", "all is new", bent().root().entry("a", origin=TAKEN, number=1).end())
    value("root_file", "the root is a directory", bent().entry("", FILE).end())
    value("root_kept_in_whole", "it is new", bent().root(KEPT).end())
    value("root_new_in_increment", "it is there", bent(frm=FROM).root().end())
    value("root_symlink", "a way out", bent().entry("", SYMLINK, target=b"/").end())
    value("type_0", "no type", bent().root().entry("a", 0).end())
    value("type_8", "no type", bent().root().entry("a", 8).end())
    value("mode", "13 bits", bent().root().entry("a", mode=0o10000).end())
    value("nanoseconds", "a whole second", bent().root().entry("a", ns=10 ** 9).end())
    value("size_beyond", "2^63", bent().root().entry("a", size=2 ** 63).end())
    value("old_size_beyond", "2^63", bent(frm=FROM).root(KEPT).entry("a", origin=KEPT, old=2 ** 63).end())
    value("old_size_of_new", "there was none", bent().root().entry("a", old=1).end())
    value("size_of_directory", "not told", bent().root().dir("a", size=1).end())
    value("device_of_file", "a file is none", bent().root().entry("a", major=1).end())
    value("device_of_fifo", "a pipe is none", bent().root().entry("a", FIFO, minor=1).end())
    value("target_of_file", "a file has none", bent().root().entry("a", target=b"x").end())
    value("target_empty", "points nowhere", bent().root().entry("a", SYMLINK).end())
    value("target_nul", "ends before it ends", bent().root().entry("a", SYMLINK, target=b"a\0b").end())
    value("target_too_long", "4096 bytes", bent().root().entry("a", SYMLINK, target=b"t" * 4096).end())
    value("xattr_empty_name", "no name", bent().root().entry("a", xattrs=[(b"", b"x")]).end())
    value("xattr_nul", "ends before it ends", bent().root().entry("a", xattrs=[(b"user.\0", b"x")]).end())
    value("xattr_long_name", "256 bytes", bent().root().entry("a", xattrs=[(b"u" * 256, b"x")]).end())
    value("xattr_long_value", "65537 bytes", bent().root().entry("a", xattrs=[(b"user.x", b"x" * 65537)]).end())
    value("xattr_order", "they ascend", bent().root().entry("a", xattrs=[(b"user.b", b""), (b"user.a", b"")]).end())
    value("xattr_twice", "each once", bent().root().entry("a", xattrs=[(b"user.a", b""), (b"user.a", b"")]).end())
    value("extent_empty", "at least one byte", bent().root().entry("a", size=4096).data(0, b"").end())
    value("object_image", "the header says a tree", Tree(bent=True).begin(kind=1).root().end())
    value("object_grain", "a power of two", bent(grain=3).root().end())
    value("header_no_tree", "the object is one, the header does not say so", Tree(bent=True).begin(incompatible=0, table=b"").root().end())

    no("length", "length_entry_empty", "no field", bent().frame(ENTRY, b"").end())
    no("length", "length_entry_short", "63 bytes", bent().root().entry("a", cut=63).end())
    no("length", "length_entry_path", "a path beyond the payload", bent().root().entry("a", plen=99).end())
    no("length", "length_entry_path_huge", "a path of 4 GiB", bent().root().entry("a", plen=2 ** 32 - 1).end())
    no("length", "length_entry_target", "a target beyond the payload", bent().root().entry("a", SYMLINK, target=b"x", tlen=2).end())
    no("length", "length_xattr_cut", "its value is not all there", bent().root().entry("a", tail=u16(1) + u32(9) + b"nvalue").end())
    no("length", "length_xattr_header_cut", "its lengths are not all there", bent().root().entry("a", tail=b"\x01").end())
    no("length", "length_gone", "7 bytes", bent(frm=FROM).gone("a", raw=b"1234567").end())
    no("length", "length_link", "7 bytes", bent().root().named("a", "b", raw=b"1234567").end())
    no("length", "length_link_path", "a path beyond the payload", bent().root().entry("a").named("b", "a", plen=99).end())
    no("reserved", "reserved_link", "the field behind the length", bent().root().entry("a").named("b", "a", reserved=1).end())
    no("reserved", "reserved_object", "a tree has no size", bent(new=1).root().end())
    no("reserved", "reserved_object_old", "a tree has no size before", bent(frm=FROM, old=1).root(KEPT).end())
    no("reserved", "reserved_entry_flags", "no flags", bent().frame(ENTRY, b"", flags=1).end())
    no("reserved", "reserved_gone_offset", "no offset", bent(frm=FROM).frame(GONE, u64(0) + path("a"), offset=1).end())
    no("bounds", "bounds_of_file", "behind the end of the file", bent().root().entry("a", size=4096).data(0, A + B).end())
    no("overlap", "overlap_in_file", "back to the beginning", bent().root().entry("a", size=8192).data(4096, A).data(0, B).end())
    no("alignment", "alignment_in_file", "half a grain", bent().root().entry("a", size=8192).data(0, A[:2048]).end())
    no("feature", "feature_unknown", "beside the known ones", Tree(bent=True).begin(incompatible=TREE | 8, table=b"").root().end())
    no("unknown-frame", "unknown_frame", "a type of trees that is not given out", bent().root().frame(0x24, b"").end())
    no("checkpoint", "checkpoint_missing", "behind 65536 frames", many(Tree(bent=True)).entry("b").end())
    no("digest", "digest_wrong", "another link", bent().root().end(digest=bytes(32)))
    cut = small().items
    stream = bent()
    stream.items = cut[:-1]
    no("truncated", "truncated_before_end", "all but END", stream)


def vectors():
    good(), refused()
    return VECTORS
