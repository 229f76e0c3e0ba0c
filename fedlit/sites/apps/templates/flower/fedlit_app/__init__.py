"""A federation of fedlit as an app of Flower."""
