"""VIRTIO: queues, transports and the block device, three things that never mix."""
