#!/usr/bin/python3
"""ceph-pools.py OSD_UUID NAME:APPLICATION ...: announce the OSD, make pools, and a file system if there are pools for one.

One connection for all of it: each call of the ceph program starts a Python interpreter anew.
"""
import json
import os
import sys

import rados


def commands(osd, pools):
    yield {"prefix": "osd new", "uuid": osd}
    for name, application in pools:
        yield {"prefix": "osd pool create", "pool": name, "pg_num": 8, "pgp_num": 8}
        yield {"prefix": "osd pool application enable", "pool": name, "app": application}
    files = [name for name, application in pools if application == "cephfs"]
    if files:
        yield {"prefix": "fs new", "fs_name": "cephfs", "metadata": files[0], "data": files[1]}


cluster = rados.Rados(conffile=os.environ["CEPH_CONF"], name="client.admin")
cluster.connect(timeout=20)
for command in commands(sys.argv[1], [pool.split(":") for pool in sys.argv[2:]]):
    code, _, status = cluster.mon_command(json.dumps(command), b"", timeout=30)
    if code < 0:
        sys.exit(f"{command}: {code} {status}")
cluster.shutdown()
