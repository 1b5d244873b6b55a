"""The other end of a serial port, for tests of the chips."""


class Line:
    """A terminal with endless patience."""

    def __init__(self, typed=b""):
        self.typed, self.shown = bytearray(typed), bytearray()

    def put(self, byte):
        self.shown.append(byte)

    def take(self, limit):
        taken = bytes(self.typed[:limit])
        del self.typed[:limit]
        return taken
