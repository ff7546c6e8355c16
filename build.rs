fn main() {
    // Sets the linker flags of an addon: among them `-z nodelete`, without which ending the only worker
    // that loaded it would unmap the code under the sweeper's feet.
    napi_build::setup();
}
