//! The front door of Imaginal: one library that names every room.
