DROP TABLE delivery_fallbacks;
