"""Read radiographs and preprocess them into network inputs. All preprocessing is here."""
