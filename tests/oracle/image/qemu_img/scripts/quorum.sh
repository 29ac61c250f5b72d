# The same bytes in several files: how many must agree, what is printed and mended.
for n in 0 1 2; do qemu-img create -q -f raw c$n 1M; done
qemu-io -f raw -c 'write -P 1 0 64k' c0
qemu-io -f raw -c 'write -P 1 0 64k' -c 'write -P 7 128k 4k' c1
qemu-io -f raw -c 'write -P 2 0 64k' c2
all=driver=quorum,children.0.driver=raw,children.0.file.filename=c0,children.1.driver=raw,children.1.file.filename=c1
all+=,children.2.driver=raw,children.2.file.filename=c2
for more in vote-threshold=2 vote-threshold=3 vote-threshold=1,read-pattern=fifo vote-threshold=2,read-pattern=lifo \
    vote-threshold=4 vote-threshold=0 vote-threshold=-1 vote-threshold=2,blkverify=on vote-threshold=two \
    vote-threshold=2,rewrite-corrupted=on vote-threshold=1 ''; do
    echo "== $more"
    qemu-img info --image-opts "$all${more:+,$more}" | grep -v 'disk size'
    qemu-img map --output=json --image-opts "$all${more:+,$more}"
    qemu-img convert -O raw --image-opts "$all${more:+,$more}" out.raw 2>/dev/null # in which order it fails is open
    od -A d -t x1 out.raw
    rm -f out.raw
done
echo '== other lists'
qemu-img info --image-opts driver=quorum,vote-threshold=1
qemu-img info --image-opts driver=quorum,vote-threshold=1,children.1.filename=c0
qemu-img info --image-opts driver=quorum,vote-threshold=1,children.0.driver=raw,children.0=c0
qemu-img info --image-opts driver=quorum,vote-threshold=1,children=c0
qemu-img info --image-opts driver=quorum,vote-threshold=1,children.0.filename=missing
qemu-img create -q -f raw small 512k
qemu-img info --image-opts driver=quorum,vote-threshold=1,children.0.filename=c0,children.1.filename=small

echo '== below a format, and as a target'
for n in 0 1; do qemu-img create -q -f qcow2 q$n 1M; done
pair='"driver": "quorum", "vote-threshold": 1, "children": [{"driver": "file", "filename": "q0"}, {"driver": "file", "filename": "q1"}]'
qemu-img info "json:{\"driver\": \"qcow2\", \"file\": {$pair}}" | grep -v 'disk size'
qemu-img convert -n --target-image-opts -f raw c0 driver=qcow2,file.driver=quorum,file.vote-threshold=2,file.children.0.filename=q0,file.children.1.filename=q1
qemu-img compare q0 q1
qemu-img compare q0 c0
cmp q0 q1
qemu-img resize --image-opts $all,vote-threshold=2 2M
qemu-img create -f quorum x 1M

echo '== stop at the first difference'
pair=driver=quorum,children.0.driver=raw,children.0.file.filename=c0,children.1.driver=raw,children.1.file.filename=c1
qemu-img convert -O raw --image-opts $pair,vote-threshold=2,blkverify=on out.raw
qemu-img compare --image-opts driver=raw,file.filename=c0 $pair,vote-threshold=2,blkverify=on
qemu-img convert -O raw blkverify:c0:c1 out.raw 2>&1 | sed 's/read.*bytes=[0-9]*//' # how much is read at once is open
qemu-img --help | grep -o 'Supported formats: .*' | grep -o -w quorum
