package io.github.mfagan.core;

import java.util.ArrayList;
import java.util.List;

/** Plays what fingers do to a before/after view, and tells what is then to be seen. */
final class Gestures {
    private Gestures() {}

    private static Comparison comparison(Question q) {
        Comparison found = new Comparison(20);
        int[] picture = q.numbers("picture");
        int[] view = q.numbers("view");
        found.viewport.setView(view[1], view[0]);
        found.viewport.setPicture(picture[1], picture[0]);
        return found;
    }

    static String play(Question q) {
        Comparison comparison = comparison(q);
        List<String> found = new ArrayList<String>();
        found.add(state(comparison));
        for (Object one : q.list("events")) {
            List<?> event = (List<?>) one;
            String name = (String) event.get(0);
            int[] values = Question.numbers(event.subList(1, event.size()));
            if (name.equals("fingers")) {
                int count = values.length / 2;
                float[] xs = new float[count];
                float[] ys = new float[count];
                for (int k = 0; k < count; k++) {
                    xs[k] = values[2 * k];
                    ys[k] = values[2 * k + 1];
                }
                comparison.fingers(xs, ys);
            } else if (name.equals("view")) {
                comparison.viewport.setView(values[1], values[0]);
            } else if (name.equals("twice")) {
                comparison.doubleTap(values[0], values[1]);
            } else if (name.equals("restore")) {
                float[] saved = comparison.viewport.save();
                comparison.viewport.setView(values[1], values[0]);
                comparison.viewport.fit();
                comparison.viewport.restore(saved);
            } else {
                throw new IllegalArgumentException(name);
            }
            found.add(state(comparison));
        }
        return found.toString();
    }

    /** The divider's share, the zoom, and the picture's pixels at the view's two corners. */
    private static String state(Comparison c) {
        Viewport v = c.viewport;
        return "[" + c.divider() + ", " + v.zoom() + ", " + v.toPictureX(0) + ", "
                + v.toPictureY(0) + ", " + v.toPictureX(v.viewWidth()) + ", "
                + v.toPictureY(v.viewHeight()) + "]";
    }

    /** Returns what is drawn, a line for each picture, text and so on. */
    static String draw(Question q) {
        Comparison comparison = comparison(q);
        comparison.setDivider((float) q.real("divider"));
        final List<String> found = new ArrayList<String>();
        Painter painter =
                new Painter() {
                    @Override
                    public void picture(int which, float[] from, float[] to) {
                        found.add("[" + which + ", " + list(from) + ", " + list(to) + "]");
                    }

                    @Override
                    public void fill(int color, float l, float t, float r, float b) {}

                    @Override
                    public void circle(int color, float x, float y, float radius) {}

                    @Override
                    public void text(String text, int color, float x, float y, float size) {
                        found.add(Json.quoted(text));
                    }

                    @Override
                    public float textWidth(String text, float size) {
                        return text.length() * size / 2;
                    }
                };
        boolean finished = q.has("finished");
        new Scene(comparison, 1).draw(painter, finished, q.real("share"), "12 %");
        return found.toString();
    }

    private static String list(float[] values) {
        return java.util.Arrays.toString(values);
    }
}
