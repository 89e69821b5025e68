//! XBZRLE: pages as differences to what the other side has.
