package io.github.mfagan.app;

import io.github.mfagan.core.ModelCard;

/** A model that the user may choose. */
final class Model {
    /** What it is called in the list. */
    final String title;
    /** What its file says of itself. */
    final ModelCard card;
    /** Its place among the app's assets, or null. */
    final String asset;
    /** Its bytes, where it is no asset, or null. */
    final byte[] bytes;

    Model(String title, ModelCard card, String asset, byte[] bytes) {
        this.title = title;
        this.card = card;
        this.asset = asset;
        this.bytes = bytes;
    }

    @Override
    public String toString() {
        return title;
    }
}
